"""Generators of random numbers that are objects: those that are registered get fresh seeds, the others are found and told.

Only libraries that are loaded are looked at: nothing here imports one.
"""

from __future__ import annotations

import os
import random
import sys
from types import ModuleType
from typing import Any, Callable, Iterator, TypeVar

from .errors import InvalidError

T = TypeVar("T")

# What is registered, and how to seed it where the type does not say.
_registered: list[tuple[Any, Callable[[Any, bytes], object] | None]] = []

# How many bytes of entropy a seed is made of; more than the state that is ever used at once needs.
_SEED = 64

# Libraries with a cryptographic generator of their own inside, which nobody can seed from outside.
_CLOSED = {
    "cryptography.hazmat.bindings._rust": "its own OpenSSL",
    "grpc._cython.cygrpc": "its own BoringSSL",
}


def register_rng(rng: T, reseed: Callable[[T, bytes], object] | None = None) -> T:
    """Registers a generator to get a fresh seed after each restore, and returns it.

    Known are random.Random, numpy's Generator, BitGenerator and RandomState, and torch.Generator. For anything else reseed is called with the
    object and 64 fresh random bytes.
    """
    if reseed is None and _seeder(rng) is None:
        raise InvalidError(
            f"{type(rng).__module__}.{type(rng).__qualname__} is no known generator: say how to seed it, as "
            f"register_rng(rng, lambda rng, entropy: rng.seed(entropy))"
        )
    _registered.append((rng, reseed))
    return rng


def reseed_registered() -> None:
    """Gives a fresh seed to everything that is registered."""
    for rng, how in _registered:
        (how or _seeder(rng) or _unknown)(rng, os.urandom(_SEED))


def clear() -> None:
    """Forgets what is registered: for tests."""
    _registered.clear()


def unregistered(instance: object | None = None, name: str = "") -> list[dict[str, str]]:
    """Generators that come out of every restore alike: in the globals of modules, and in the attributes of an object with that name.

    Not listed are those that are renewed anyway, and those that the standard library, numpy and torch keep for themselves.
    """
    known = {id(rng) for rng in _renewed()}
    found: list[dict[str, str]] = []
    for where, value in _values(instance, name):
        what = _type_of(value)
        if what and id(value) not in known:
            known.add(id(value))
            found.append({"where": where, "type": what})
    found.extend({"where": module, "type": what} for module, what in _CLOSED.items() if module in sys.modules)
    return found


def _renewed() -> Iterator[object]:
    for rng, _ in _registered:
        yield rng
        # A Generator and the BitGenerator inside of it are one source.
        yield getattr(rng, "bit_generator", rng)
    yield getattr(random, "_inst", None)
    mtrand = sys.modules.get("numpy.random.mtrand")
    yield getattr(mtrand, "_rand", None)
    yield getattr(sys.modules.get("torch"), "default_generator", None)


def _values(instance: object | None, name: str) -> Iterator[tuple[str, object]]:
    """What may hold a generator: attributes of the object first, then globals, one level of containers included."""
    places: list[tuple[str, dict[str, Any]]] = []
    if instance is not None:
        places.append((name, getattr(instance, "__dict__", {})))
    for module_name, module in list(sys.modules.items()):
        root = module_name.partition(".")[0]
        if root in sys.stdlib_module_names or root in ("thaw", "numpy", "torch") or not issubclass(type(module), ModuleType):
            continue
        # Not by attribute: a module that is loaded lazily would load itself.
        places.append((module_name, object.__getattribute__(module, "__dict__")))
    for where, names in places:
        for key, value in list(names.items()):
            yield f"{where}.{key}", value
            if type(value) in (list, tuple):
                yield from ((f"{where}.{key}[{i}]", item) for i, item in enumerate(value[:1000]))
            elif type(value) is dict and key != "__builtins__":
                yield from ((f"{where}.{key}[{k!r}]", item) for k, item in list(value.items())[:1000])


def _kinds() -> Iterator[tuple[type, Callable[[Any, bytes], object] | None]]:
    """The types of generators, of the libraries that are loaded, with how to seed them. None: it cannot be seeded in place."""
    yield random.Random, _seed_random
    numpy = sys.modules.get("numpy.random")
    for name, how in (("Generator", _seed_generator), ("RandomState", _seed_state), ("BitGenerator", _seed_bits), ("SeedSequence", None)):
        if isinstance(kind := getattr(numpy, name, None), type):
            yield kind, how
    if isinstance(kind := getattr(sys.modules.get("torch"), "Generator", None), type):
        yield kind, _seed_torch


def _type_of(value: object) -> str | None:
    # By type, not by isinstance: that asks proxies what they stand for, and some load a library then.
    cls = type(value)
    if issubclass(cls, random.SystemRandom):
        return None
    if any(issubclass(cls, kind) for kind, _ in _kinds()):
        return f"{cls.__module__}.{cls.__qualname__}"
    return None


def _seeder(rng: object) -> Callable[[Any, bytes], object] | None:
    cls = type(rng)
    return next((how for kind, how in _kinds() if issubclass(cls, kind)), None)


def _seed_random(rng: random.Random, entropy: bytes) -> None:
    rng.seed(entropy)


def _seed_generator(rng: Any, entropy: bytes) -> None:
    _seed_bits(rng.bit_generator, entropy)


def _seed_bits(bits: Any, entropy: bytes) -> None:
    sequence = sys.modules["numpy.random"].SeedSequence(int.from_bytes(entropy, "little"))
    state = type(bits)(sequence).state
    try:
        # The sequence goes with the state: spawn() makes children from it. numpy before 1.26 takes a state alone.
        bits.__setstate__((state, sequence))
    except TypeError:
        bits.state = state


def _seed_state(rng: Any, entropy: bytes) -> None:
    rng.seed([int.from_bytes(entropy[i : i + 4], "little") for i in range(0, len(entropy), 4)])


def _seed_torch(rng: Any, entropy: bytes) -> None:
    rng.manual_seed(int.from_bytes(entropy[:8], "little") >> 1)


def _unknown(rng: Any, entropy: bytes) -> None:
    raise InvalidError(f"{type(rng).__qualname__} cannot be seeded")
