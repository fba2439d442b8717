"""What stands in the way of freezing this process, or of using it after a restore, found and named before anybody tries."""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any, Iterator

from . import gpu

# Descriptors that no frozen process can have, by the beginning of what /proc says they are.
_DESCRIPTORS = {
    "anon_inode:[io_uring]": ("io_uring", "an io_uring", "close it in a @thaw.before_snapshot function, or make it in enter(snap=False)"),
    "anon_inode:inotify": ("inotify", "an inotify watch", "watch files from enter(snap=False) on; what is not read yet would be lost"),
    "anon_inode:[fanotify]": ("inotify", "a fanotify watch", "watch files from enter(snap=False) on"),
    "anon_inode:[userfaultfd]": ("descriptor", "a userfaultfd", "make it in enter(snap=False)"),
    "anon_inode:[perf_event]": ("descriptor", "a performance counter", "stop profiling before the freeze"),
    "anon_inode:bpf": ("descriptor", "a BPF object", "load it in enter(snap=False)"),
    "/dev/nvidia": ("gpu", "an open GPU", "touch the GPU in enter(snap=False) only; thaw.device() says where models belong"),
    "/dev/dri/": ("gpu", "an open GPU", "touch the GPU in enter(snap=False) only"),
    "/dev/kfd": ("gpu", "an open GPU", "touch the GPU in enter(snap=False) only"),
}

_CLOSE = "close it at the end of enter(snap=True), or in a @thaw.before_snapshot function, and open it in enter(snap=False)"

# The third state of TCP and up to the last before "closed": everything in which the other side counts on this one.
_TCP_CLOSE, _TCP_LISTEN = 7, 10


@dataclass(frozen=True)
class Problem:
    """One obstacle. blocks: the process cannot be frozen with it; otherwise it can, and the hint says what to know."""

    kind: str
    what: str
    hint: str
    blocks: bool = True

    def fields(self) -> dict[str, Any]:
        """For an event."""
        return asdict(self)


def find() -> list[Problem]:
    """All obstacles of this process."""
    return [*_descriptors(), *_cuda(), *_pools()]


def _descriptors() -> Iterator[Problem]:
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        fd = int(name)
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # The folder's own descriptor, which was open while it was read.
            continue
        if target.startswith("socket:"):
            problem = _socket(fd)
            if problem is not None:
                yield problem
            continue
        for beginning, (kind, what, hint) in _DESCRIPTORS.items():
            if target.startswith(beginning):
                where = f" ({target})" if target.startswith("/") else ""
                yield Problem(kind, f"{what}{where}, descriptor {fd}", hint)


def _socket(fd: int) -> Problem | None:
    # A duplicate: the object closes what it is given.
    with socket.socket(fileno=os.dup(fd)) as s:
        family = _family(s.family)
        if s.family in (socket.AF_INET, socket.AF_INET6):
            return _internet(s, fd)
        if s.family == socket.AF_UNIX:
            return _unix(s, fd)
        if s.family in (getattr(socket, "AF_NETLINK", -1), getattr(socket, "AF_PACKET", -1)):
            return None
        return Problem("connection", f"a socket of the family {family}, descriptor {fd}", _CLOSE)


def _internet(s: socket.socket, fd: int) -> Problem | None:
    if s.type != socket.SOCK_STREAM:
        # Datagrams have no other side that waits.
        return None
    state = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    if state in (_TCP_CLOSE, _TCP_LISTEN):
        return None
    try:
        host, port = s.getpeername()[:2]
        peer = f"to {host}:{port}"
    except OSError:
        peer = "without another side"
    return Problem("connection", f"a TCP connection {peer}, descriptor {fd}", _CLOSE)


def _unix(s: socket.socket, fd: int) -> Problem | None:
    if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    try:
        peer = s.getpeername()
    except OSError:
        return None
    # Who made the other side. A pair within this process, or between it and its children, is frozen and comes back as a whole.
    pid = int.from_bytes(s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder, signed=True)
    if _in_our_tree(pid):
        return None
    name = peer.decode(errors="replace") if isinstance(peer, bytes) else peer
    return Problem("connection", f"a connection to {name or 'another process'} (Unix socket), descriptor {fd}", _CLOSE)


def _in_our_tree(pid: int) -> bool:
    """Whether a process is this one or one of its descendants. A process outside of the pid namespace is 0."""
    own = os.getpid()
    while pid > 1 and pid != own:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                pid = int(stat.read().rpartition(b")")[2].split()[1])
        except OSError:
            return False
    return pid == own


def _family(family: int) -> str:
    try:
        return socket.AddressFamily(family).name
    except ValueError:
        return str(int(family))


def _cuda() -> Iterator[Problem]:
    what = gpu.initialised()
    if what is not None:
        yield Problem("gpu", what, "touch the GPU in enter(snap=False) only; thaw.device() says where models belong")


def _pools() -> Iterator[Problem]:
    """Pools of threads. They come back as they are; their number of threads does, too, on a machine with other CPUs."""
    counts: dict[str, int] = {}
    for thread in threading.enumerate():
        if thread is threading.main_thread():
            continue
        pool = _pool_of(thread)
        if pool is not None:
            counts[pool] = counts.get(pool, 0) + 1
    for name, count in counts.items():
        yield Problem(
            "thread",
            f"{name} with {count} thread{'s' if count > 1 else ''}",
            "it comes back with the threads that it has now; make it in enter(snap=False) if it should have one for each CPU of the machine",
            blocks=False,
        )


def _pool_of(thread: threading.Thread) -> str | None:
    futures: Any = sys.modules.get("concurrent.futures.thread")
    if futures is not None and thread in futures._threads_queues:
        return f"the thread pool {thread.name.rpartition('_')[0] or thread.name}"
    pool: Any = sys.modules.get("multiprocessing.pool")
    # The pool's helper threads carry the names of what they run.
    if pool is not None and getattr(getattr(thread, "_target", None), "__module__", None) == "multiprocessing.pool":
        return "a multiprocessing pool"
    return None
