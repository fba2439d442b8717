"""Draws from everything that gives numbers, names or keys which no two processes may share."""

import ctypes
import multiprocessing
import multiprocessing.synchronize
import os
import random
import secrets
import socket
import ssl
import tempfile
import uuid

import thaw

app = thaw.App("unique")


@app.cls(enable_memory_snapshot=True)
class Draws:
    @thaw.enter(snap=True)
    def load(self):
        import numpy
        import torch

        # Sown alike wherever that is possible: what is not sown anew draws alike.
        libc = ctypes.CDLL(None)
        random.seed(1)
        numpy.random.seed(2)
        torch.manual_seed(3)
        libc.srand(4)
        libc.srand48(5)
        own = thaw.register_rng(random.Random(6))
        generator = thaw.register_rng(numpy.random.default_rng(7))
        bits = thaw.register_rng(numpy.random.PCG64(8))
        tensor = thaw.register_rng(torch.Generator().manual_seed(9))
        forgotten = self.forgotten = random.Random(10)
        # State in memory: a clone has it, too, unless it is renewed.
        self.kept = {
            "random": lambda: random.getrandbits(128),
            "random.Random, registered": lambda: own.getrandbits(128),
            "numpy.random": lambda: numpy.random.bytes(16).hex(),
            "numpy Generator, registered": lambda: generator.bytes(16).hex(),
            "numpy BitGenerator, registered": lambda: bits.random_raw(),
            "torch": lambda: torch.rand(8).tolist(),
            "torch.Generator, registered": lambda: torch.rand(8, generator=tensor).tolist(),
            "ssl": lambda: ssl.RAND_bytes(16).hex(),
            "tempfile": lambda: next(tempfile._get_candidate_names()),
            "semaphores": lambda: next(multiprocessing.synchronize.SemLock._rand),
            "authkey": lambda: bytes(multiprocessing.current_process().authkey).hex(),
            "uuid1": lambda: uuid.uuid1().fields[3:],
            "node": uuid.getnode,
            "rand": libc.rand,
            "random of libc": libc.random,
            "lrand48": libc.lrand48,
        }
        # What the kernel, or the host, is asked for.
        self.asked = {
            "uuid4": lambda: str(uuid.uuid4()),
            "urandom": lambda: os.urandom(16).hex(),
            "secrets": lambda: secrets.token_hex(16),
            "SystemRandom": lambda: random.SystemRandom().getrandbits(128),
            "host name": socket.gethostname,
            "generation": thaw.generation,
        }
        self.same = {"a generator that nobody registered": lambda: forgotten.getrandbits(128)}
        self.draw()

    @thaw.method()
    def draw(self):
        return {kind: {name: draw() for name, draw in getattr(self, kind).items()} for kind in ("kept", "asked", "same")}
