"""Blocks of bytes that are read one at a time, over the standard streams.

Each block is 4 MiB from a fixed seed, half of each page random and half text, so that it can be compressed. A request reads one block, all of it, and
no other:

    {"block": N}  ->  {"sha256": "..."}
"""

import hashlib
import json
import random
import sys

BLOCKS = 16
PAGES = 1024
HALF = 2048


def fill(number):
    draw = random.Random(number)
    block = bytearray()
    for _ in range(PAGES):
        block += draw.randbytes(HALF) + b"thaw" * (HALF // 4)
    return block


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    blocks = [fill(number) for number in range(BLOCKS)]
    say({"ready": True})
    for line in sys.stdin:
        number = json.loads(line)["block"]
        say({"sha256": hashlib.sha256(blocks[number]).hexdigest()})


if __name__ == "__main__":
    main()
