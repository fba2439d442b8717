"""Errors as an author should see them: without the frames of this package and of what it runs the author's code with."""

from __future__ import annotations

import os
import traceback
from types import TracebackType
from typing import Any

# Frames in these files are ours. The import system's own frames have names such as <frozen importlib._bootstrap>.
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MACHINERY = "<frozen importlib._bootstrap"

# Characters of a message or a traceback at most. Both are in one line for the host, as JSON, where a character has up to 12 bytes: that is well
# below what a line may have, and more than anybody reads.
_LONGEST = 1 << 20


def is_ours(filename: str) -> bool:
    """Whether a frame of this file is left out."""
    return filename.startswith((_OURS, _MACHINERY))


def describe(error: BaseException) -> dict[str, str]:
    """The fields of an error for an event: type, message and traceback."""
    return {"type": type(error).__qualname__, "message": _cut_off(message(error)), "traceback": _cut_off(text(error))}


def _cut_off(said: str) -> str:
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}... ({len(said)} characters)"


def message(error: BaseException) -> str:
    """What the error says; an error whose own __str__ fails says that."""
    try:
        return str(error)
    except Exception as failure:
        return f"<{type(failure).__name__} in __str__ of {type(error).__name__}>"


def text(error: BaseException) -> str:
    """The traceback as Python prints it, causes and groups included, with the author's frames only."""
    full = traceback.TracebackException(type(error), error, _without_first_ours(error.__traceback__))
    _cut(full, set())
    return "".join(full.format())


def _without_first_ours(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither ours nor of the event loop that ours ran."""
    while tb is not None and _leads_on(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return tb


def _leads_on(filename: str) -> bool:
    return is_ours(filename) or os.path.basename(os.path.dirname(filename)) == "asyncio"


def _cut(error: Any, seen: set[int]) -> None:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    error.stack[:] = [frame for frame in error.stack if not is_ours(frame.filename)]
    _cut(error.__cause__, seen)
    _cut(error.__context__, seen)
    for part in getattr(error, "exceptions", None) or ():
        _cut(part, seen)
