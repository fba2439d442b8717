"""Makes a process unlike all others that came out of the same snapshot: everything that keeps random state in memory gets a new one.

What asks the kernel each time needs nothing: os.urandom, secrets, uuid4, random.SystemRandom. Not renewed, since nobody can: the secret of
str hashes, the addresses of memory and the stack's canary are the same in all restores of one snapshot.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Callable

from . import generators


def renew(generation: str) -> None:
    """Renews the random state of all libraries that are loaded, of libc, and of what is registered.

    generation is different in each process, and is mixed into what takes more than a number.
    """
    for module, step in _STEPS:
        loaded = sys.modules.get(module)
        if loaded is not None:
            step(loaded, generation)
    _libc()
    generators.reseed_registered()


def _random(random: Any, generation: str) -> None:
    random.seed(os.urandom(64) + generation.encode())


def _numpy(numpy_random: Any, generation: str) -> None:
    rng = numpy_random.mtrand._rand
    try:
        generators._seed_state(rng, os.urandom(64))
    except TypeError:
        # The author has put another BitGenerator below the global functions (numpy.random.set_bit_generator).
        generators._seed_bits(numpy_random.get_bit_generator(), os.urandom(64))


def _torch(torch: Any, generation: str) -> None:
    seed = int.from_bytes(os.urandom(8), "little") >> 1
    torch.default_generator.manual_seed(seed)
    # For GPUs the seed is queued until CUDA is initialised; a seed that was queued before the freeze would be the same everywhere.
    # In a build without CUDA there is nothing to queue for.
    cuda = sys.modules.get("torch.cuda")
    if cuda is not None and hasattr(torch._C, "_cuda_getDeviceCount") and not cuda._is_in_bad_fork():
        cuda.manual_seed_all(seed)


def _openssl(ssl: Any, generation: str) -> None:
    # OpenSSL seeds itself anew when it sees another pid, and the pid comes back as it was. What is added here goes into the generator
    # that all others take their seeds from, and they notice.
    ssl.RAND_add(os.urandom(48) + generation.encode(), 48.0)


def _tempfile(tempfile: Any, generation: str) -> None:
    tempfile._name_sequence = None


def _semaphores(synchronize: Any, generation: str) -> None:
    if hasattr(synchronize.SemLock, "_rand"):
        synchronize.SemLock._rand = sys.modules["tempfile"]._RandomNameSequence()


def _authkey(process: Any, generation: str) -> None:
    # Children that run know the old key, and could not be talked to with a new one.
    if not process._children:
        process.current_process().authkey = os.urandom(32)


def _uuid(uuid: Any, generation: str) -> None:
    # A random node, marked as such by the multicast bit: the network card's address can come out of the snapshot, too. libuuid keeps a
    # clock sequence that cannot be reached; without it uuid1 takes a random one for each call.
    uuid._node = int.from_bytes(os.urandom(6), "big") | 1 << 40
    uuid._generate_time_safe = None
    for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        if hasattr(uuid, name):
            setattr(uuid, name, None)
    if hasattr(uuid, "_last_counter_v7"):
        uuid._last_counter_v7 = 0


def _libc() -> None:
    libc = ctypes.CDLL(None)
    seeds = [int.from_bytes(os.urandom(4), "little") for _ in range(3)]
    # The first two seed the same generator in glibc, and two in other libraries.
    for name, seed in zip(("srand", "srandom", "srand48"), seeds):
        function = getattr(libc, name, None)
        if function is not None:
            function(seed)


# What to renew if a module is loaded.
_STEPS: list[tuple[str, Callable[[Any, str], None]]] = [
    ("random", _random),
    ("numpy.random", _numpy),
    ("torch", _torch),
    ("_ssl", _openssl),
    ("tempfile", _tempfile),
    ("multiprocessing.synchronize", _semaphores),
    ("multiprocessing.process", _authkey),
    ("uuid", _uuid),
]
