"""One process, prepared as for a freeze, and two copies of it, each booted as if it had been restored.

A program of its own, for any Python: two_restores.py reseed|keep [LIBRARY...]. Prints one JSON object: what each copy drew from each generator.

The copies are forks behind the interpreter's back: os.fork would seed `random` anew in the child, as no restore does. Each is the first
process of a pid namespace, and so is the original: all have the pid 1, as restored processes have the pid that they had. Without the
privilege for that the pids differ, and "pid" in the output is false.
"""

import ctypes
import json
import os
import sys

CLONE_NEWPID = 0x20000000

# PyDLL keeps the interpreter's lock: the copy goes on in the same thread with it.
libc = ctypes.PyDLL(None, use_errno=True)


def load(libraries):
    """Imports what is to be renewed, and draws once, so that all state is there."""
    import multiprocessing
    import multiprocessing.synchronize
    import random
    import ssl
    import tempfile
    import uuid

    import thaw

    # Sown with a fixed seed: whoever does not sow anew draws alike.
    random.seed(1)
    libc.srand(1)
    libc.srand48(1)
    draws = {
        "random": lambda: random.getrandbits(128),
        "random.Random, registered": lambda r=thaw.register_rng(random.Random(2)): r.getrandbits(128),
        "a generator of somebody's own": lambda r=thaw.register_rng([3], reseed=lambda r, entropy: r.__setitem__(0, entropy.hex())): r[0],
        "ssl": lambda: ssl.RAND_bytes(32).hex(),
        "tempfile": lambda: next(tempfile._get_candidate_names()),
        "semaphores": lambda: next(multiprocessing.synchronize.SemLock._rand),
        "authkey": lambda: bytes(multiprocessing.current_process().authkey).hex(),
        "uuid1, node and clock": lambda: uuid.uuid1().fields[3:],
        "uuid.getnode": uuid.getnode,
        "libc's rand": libc.rand,
        "libc's random": libc.random,
        "libc's lrand48": libc.lrand48,
    }
    if "numpy" in libraries:
        import numpy

        numpy.random.seed(4)
        generator = thaw.register_rng(numpy.random.default_rng(5))
        bits = thaw.register_rng(numpy.random.PCG64(6))
        state = thaw.register_rng(numpy.random.RandomState(7))
        philox = thaw.register_rng(numpy.random.Generator(numpy.random.Philox(8)))
        draws |= {
            "numpy.random": lambda: numpy.random.bytes(32).hex(),
            "numpy Generator, registered": lambda: generator.bytes(32).hex(),
            "numpy Generator, its children": lambda: generator.spawn(1)[0].bytes(32).hex(),
            "numpy BitGenerator, registered": lambda: bits.random_raw(),
            "numpy RandomState, registered": lambda: state.bytes(32).hex(),
            "numpy Philox, registered": lambda: philox.bytes(32).hex(),
        }
    if "torch" in libraries:
        import torch

        torch.manual_seed(9)
        own = thaw.register_rng(torch.Generator().manual_seed(10))
        draws |= {
            "torch": lambda: torch.rand(8).tolist(),
            "torch.Generator, registered": lambda: torch.rand(8, generator=own).tolist(),
        }
    for draw in draws.values():
        draw()
    return draws


def restore(number, life, reseed, draws):
    """Runs in a copy: boots it, and draws."""
    from thaw.boot import Boot

    life.boot(Boot(restored=True, generation=f"{number:032x}"), reseed=reseed)
    return {name: draw() for name, draw in draws.items()}


def copy(namespace, body):
    """What body gives in a copy of this process. namespace is a descriptor of this process's pid namespace, or None."""
    read, write = os.pipe()
    if namespace is not None:
        # Children of a namespace that has been left cannot be the first ones of another: go back to one's own before.
        if libc.setns(namespace, CLONE_NEWPID) or libc.unshare(CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "no pid namespace")
    child = libc.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(body()).encode())
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(write)
    with open(read) as file:
        text = file.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the copy failed")
    return json.loads(text)


def main():
    reseed = sys.argv[1] == "reseed"
    libraries = sys.argv[2:]
    namespace = os.open("/proc/self/ns/pid", os.O_RDONLY) if os.getpid() == 1 else None

    from thaw.life import Life

    draws = load(libraries)
    life = Life()
    life.prepare()
    copies = [copy(namespace, lambda i=i: restore(i, life, reseed, draws)) for i in range(2)]
    print(json.dumps({"pid": namespace is not None, "copies": copies}))


if __name__ == "__main__":
    main()
