"""An index of documents in Python's own objects that answers requests over its standard streams.

It stands for a small function: the standard library and some 20 MB of strings, lists and dictionaries, made from a fixed seed. The
protocol is the embedder's:

    {"sentences": ["...", ...]}  ->  {"embeddings": ["<hex of little-endian float64>", ...], "sha256": "..."}

The answer to a sentence is the scores of the documents that its words find.
"""

import asyncio
import decimal
import email
import hashlib
import http.client
import json
import logging
import random
import sqlite3
import struct
import sys
import unittest
import urllib.request
import xml.etree.ElementTree

# What a service of any size has imported; nothing here is used, as in most of them.
IMPORTED = (asyncio, decimal, email, http.client, logging, sqlite3, unittest, urllib.request, xml.etree.ElementTree)

DOCUMENTS = 4000
LENGTH = 40  # words in a document
SYLLABLES = ("th", "aw", "fre", "eze", "pa", "ge", "fa", "ult", "me", "mo", "ry", "ker", "nel", "the")
SEED = 20260103


def words(draw):
    return ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(LENGTH)]


def build():
    """The documents, and for each word how often each document has it."""
    draw = random.Random(SEED)
    documents = [words(draw) for _ in range(DOCUMENTS)]
    index = {}
    for number, document in enumerate(documents):
        for word in document:
            found = index.setdefault(word, {})
            found[number] = found.get(number, 0) + 1
    return documents, index


def scores(documents, index, sentence):
    found = {}
    for word in sentence.lower().split():
        matches = index.get(word, {})
        for number, count in matches.items():
            found[number] = found.get(number, 0.0) + count / len(documents[number]) / len(matches)
    best = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:64]
    return b"".join(struct.pack("<dd", number, score) for number, score in best) or struct.pack("<d", 0)


def answer(documents, index, request):
    rows = [scores(documents, index, sentence) for sentence in request["sentences"]]
    return {
        "embeddings": [row.hex() for row in rows],
        "sha256": hashlib.sha256(b"".join(rows)).hexdigest(),
    }


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    documents, index = build()
    say({"ready": True})
    for line in sys.stdin:
        try:
            say(answer(documents, index, json.loads(line)))
        except (ValueError, KeyError, TypeError) as err:
            say({"error": f"{type(err).__name__}: {err}"})


if __name__ == "__main__":
    main()
