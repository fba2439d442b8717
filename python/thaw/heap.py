"""The memory of the process before the freeze: nothing in it that is not needed, and nothing that moves without need after it."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys


def settle() -> None:
    """Collects garbage, writes buffered text out, keeps the collector away from what there is now, and gives freed memory back.

    The collector writes into every object that it looks at: pages that are only read in the restored processes stay shared.
    """
    flush()
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    # glibc only; other allocators have no such call.
    trim = getattr(libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


# mallopt(3) of glibc: the size from which a block gets a mapping of its own, and how much free memory the heap may have at its end.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_MIB = 1 << 20


def place_apart() -> None:
    """Has large blocks, from 256 KiB on, lie in mappings of their own: what an author loads before the freeze.

    There a block begins at the same place of a page whatever was allocated before it, so that the same weights in two functions are the same
    pages. Without this glibc takes blocks of up to 32 MiB from the heap once a larger one has been freed.
    """
    _mallopt(_MMAP_THRESHOLD, _MIB // 4)


def place_together() -> None:
    """Has large blocks come from the heap again, as they do in a process that has run for a while: a mapping of its own for each result is slow."""
    _mallopt(_MMAP_THRESHOLD, 32 * _MIB)
    _mallopt(_TRIM_THRESHOLD, 64 * _MIB)


def _mallopt(parameter: int, value: int) -> None:
    # glibc only; other allocators have no such call.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)


def flush() -> None:
    """Writes out what streams, log handlers and C's stdio have buffered: it would come out of each restore again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # No stream, or a closed one.
            pass
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        try:
            handler.flush()
        except (AttributeError, OSError, ValueError):
            pass
    ctypes.CDLL(None).fflush(None)
