"""A table of random numbers in numpy that answers requests over its standard streams.

It stands for a function with a big array and little else: a table of --mib MiB (rows of 1024 uint32, 4 KiB each), filled from
a fixed seed, so that every start has the same content. The protocol is the embedder's:

    {"sentences": ["...", ...]}  ->  {"embeddings": ["<hex of little-endian uint32>", ...], "sha256": "..."}

A sentence picks one row in sixteen by its hash, from all over the table, and the answer is their weighted sum: with 256 MiB
a request reads 16 MiB, in 4096 rows that lie in 4096 to 8192 of the table's 65536 pages. Whole numbers make the same sum in any order.

--own makes a second table of 1 MiB from that number, all of which goes into each answer: processes that differ in it
alone share nearly all pages.
"""

import argparse
import hashlib
import json
import sys

import numpy as np

ROW = 1024  # numbers; 4 KiB
PICK = 16  # a request reads one row in so many
SEED = 20260102


def fill(mib, seed):
    # One array of random bytes is one block of the allocator's: private anonymous memory.
    return np.random.default_rng(seed).integers(0, 1 << 32, size=(mib << 8, ROW), dtype=np.uint32)


def weighted_sum(table, rows, weights):
    total = np.zeros(ROW, dtype=np.uint32)
    for row, weight in zip(rows, weights):
        total += table[row] * weight
    return total


def embed(table, own, sentence):
    digest = hashlib.sha256(sentence.encode()).digest()
    draw = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    rows = draw.choice(len(table), size=len(table) // PICK, replace=False)
    weights = draw.integers(1, 1 << 32, size=len(rows), dtype=np.uint32)
    total = weighted_sum(table, rows, weights)
    total += weighted_sum(own, range(len(own)), weights)
    return total.astype("<u4").tobytes()


def answer(table, own, request):
    rows = [embed(table, own, sentence) for sentence in request["sentences"]]
    return {
        "embeddings": [row.hex() for row in rows],
        "sha256": hashlib.sha256(b"".join(rows)).hexdigest(),
    }


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--own", type=int, default=0)
    arguments = parser.parse_args()
    table, own = fill(arguments.mib, SEED), fill(1, SEED + 1 + arguments.own)
    say({"ready": True})
    for line in sys.stdin:
        try:
            say(answer(table, own, json.loads(line)))
        except (ValueError, KeyError, TypeError) as err:
            say({"error": f"{type(err).__name__}: {err}"})


if __name__ == "__main__":
    main()
