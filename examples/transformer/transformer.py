"""A BERT-large-sized transformer with fixed random weights that answers requests over its standard streams.

It stands for a function with a big model: 335 million parameters, 1.34 GB of float32, made from a fixed seed, so that
no download is needed and every start has the same weights. The protocol is the embedder's:

    {"sentences": ["...", ...]}  ->  {"embeddings": ["<hex of little-endian float32>", ...], "sha256": "..."}

There is no tokenizer for a model of random weights: a sentence's bytes are its tokens.

--small makes a model of few and narrow layers, for tests.
"""

import argparse
import hashlib
import json
import os
import sys

# Nothing here may look for the network, neither before the freeze nor after it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import BertConfig, BertModel

# BERT-large: what makes a cold start slow and a snapshot big is the size, not the meaning of the weights.
CONFIG = dict(
    vocab_size=30522,
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    max_position_embeddings=512,
)
SMALL = CONFIG | dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256)
SEED = 20260101


def load(config):
    # The layers are made without content and filled once: BertModel's own way draws every weight twice, and a start
    # that is slower than reading the weights from a file would flatter whatever it is compared with.
    with torch.device("meta"):
        model = BertModel(BertConfig(**config))
    model.to_empty(device="cpu")
    model.embeddings.position_ids.copy_(torch.arange(config["max_position_embeddings"]))
    model.embeddings.token_type_ids.zero_()
    draw = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter.fill_(1)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.uniform_(-0.035, 0.035, generator=draw)
    return model.eval()


def tokens(sentences):
    """The bytes of each sentence as token numbers, padded to the longest, and the mask of what is not padding."""
    rows = [list(s.encode())[: CONFIG["max_position_embeddings"]] for s in sentences]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


@torch.inference_mode()
def embed(model, sentences):
    """A vector for each sentence, in CPU memory, wherever the model is."""
    ids, mask = (t.to(model.device) for t in tokens(sentences))
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weight = mask.unsqueeze(-1)
    return ((hidden * weight).sum(1) / weight.sum(1)).cpu()


def answer(model, request):
    rows = [row.numpy().astype("<f4").tobytes() for row in embed(model, request["sentences"])]
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
    config = SMALL if parser.parse_args().small else CONFIG
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = load(config)
    say({"ready": True})
    for line in sys.stdin:
        try:
            say(answer(model, json.loads(line)))
        except (ValueError, KeyError, TypeError) as err:
            say({"error": f"{type(err).__name__}: {err}"})


if __name__ == "__main__":
    main()
