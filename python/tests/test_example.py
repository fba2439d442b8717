"""Examples, and the package beside real libraries, with the Python of the root file system."""

from __future__ import annotations

import json

import pytest

from conftest import in_root_file_system


def test_the_embedder_embeds_without_a_server() -> None:
    done = in_root_file_system(
        "-m", "thaw", "run", "/mnt/examples/embedder/app.py::Embedder.embed", "--json", '{"sentences": ["a", "b"]}', "--param", "layers=1"
    )
    assert done.returncode == 0, done.stderr
    vectors = json.loads(done.stdout)
    assert [len(vector) for vector in vectors] == [384, 384]
    assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1, 1])


def test_the_transformer_embeds_without_a_server() -> None:
    done = in_root_file_system(
        "-m", "thaw", "run", "/mnt/examples/transformer/app.py::Transformer.embed", "--json", '{"sentences": ["a", "b"]}', "--param", "small=true"
    )
    assert done.returncode == 0, done.stderr
    one, other = json.loads(done.stdout)
    assert len(one) == len(other) == 64
    assert one != other


# Results of numpy and torch, generators of theirs that nobody registered, and threads that follow the CPUs, with the libraries themselves.
PROGRAM = """
import json, sys
import numpy, torch
from thaw import cpus, generators, gpu, values

class Thing: pass
thing = Thing()
thing.rng, thing.bits, thing.state = numpy.random.default_rng(1), numpy.random.PCG64(1), numpy.random.RandomState(1)
thing.torch, thing.sequence = torch.Generator(), numpy.random.SeedSequence(1)
thing.known = generators.register_rng(numpy.random.default_rng(2))
thing.inside = thing.known.bit_generator
thing.default = torch.default_generator

torch.set_num_threads(3)
cpus.available = lambda: 3
cpus.remember()
cpus.available = lambda: 1
cpus.follow(None)

gpu.hide()
asked = torch.cuda.is_available()
gpu.reveal()

print(json.dumps({
    "values": json.loads(values.to_json({
        "scalar": numpy.float32(1.5), "array": numpy.arange(4).reshape(2, 2), "bool": numpy.bool_(True), "int": numpy.int64(7),
        "tensor": torch.ones(2, requires_grad=True), "zero": torch.tensor(3),
    })),
    "found": sorted(g["where"] + " " + g["type"] for g in generators.unregistered(thing, "Thing") if g["where"].startswith("Thing")),
    "globals": [g for g in generators.unregistered() if g["where"].startswith(("numpy", "torch"))],
    "threads": torch.get_num_threads(),
    "cuda": asked or torch.cuda.is_initialized(),
}))
"""


def test_real_numpy_and_torch() -> None:
    done = in_root_file_system("-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "values": {"scalar": 1.5, "array": [[0, 1], [2, 3]], "bool": True, "int": 7, "tensor": [1.0, 1.0], "zero": 3},
        "found": [
            "Thing.bits numpy.random._pcg64.PCG64",
            "Thing.rng numpy.random._generator.Generator",
            "Thing.sequence numpy.random.bit_generator.SeedSequence",
            "Thing.state numpy.random.mtrand.RandomState",
            "Thing.torch torch._C.Generator",
        ],
        "globals": [],
        "threads": 1,
        "cuda": False,
    }
