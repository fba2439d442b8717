"""Objects of an app in an author's own tests, without a server."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any, Iterator, TypeVar

from .boot import Boot

T = TypeVar("T")


@contextmanager
def started(cls: type[T], **parameters: Any) -> Iterator[T]:
    """Makes an object of a declared class, runs its hooks in the order in which a server does, and its exit methods at the end.

        with thaw.started(Embedder, size=3) as embedder:
            assert embedder.embed(["a"])

    Async methods are called as usual, with await; async hooks run on a loop of their own, so not inside of a running one.
    """
    from .definition import Settings, define_class
    from .life import Life, StageError

    life = Life()
    try:
        life.construct(define_class(cls, Settings(enable_memory_snapshot=True)), parameters)
        life.boot(Boot(generation=os.urandom(16).hex()))
        try:
            yield life.instance
        finally:
            life.exit()
    except StageError as err:
        raise err.error from None
