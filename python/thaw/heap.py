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
