"""Results as JSON. What is nearly JSON is converted; for the rest the error says where in the value it is."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from typing import Any

from .errors import ResultError

# What to do instead, for types that are met often.
_HINTS = {
    bytes: "base64.b64encode(...).decode() makes a text of it",
    bytearray: "base64.b64encode(...).decode() makes a text of it",
    set: "list(...) makes a list of it",
    frozenset: "list(...) makes a list of it",
}


def to_json(value: object) -> str:
    """One line of JSON. Raises ResultError if the value has no form in JSON.

    Converted are dataclasses, enumerations, and arrays and scalars of numpy and those that look like them: what has tolist() and a dtype.
    """
    try:
        return json.dumps(value, default=_convert, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as failure:
        # The encoder does not say where it was: look again, slowly. What a conversion itself raises is told as it is.
        raise ResultError(f"the result cannot be written as JSON: {_find(value, 'result', []) or failure}") from None


def _convert(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if _like_numpy(value):
        return value.tolist()  # type: ignore[attr-defined]
    raise TypeError(type(value).__name__)


def _like_numpy(value: object) -> bool:
    kind = type(value)
    return callable(getattr(kind, "tolist", None)) and (hasattr(kind, "dtype") or hasattr(kind, "typecode"))


def _find(value: object, path: str, above: list[int]) -> str | None:
    """What is wrong first in a value, and where; None if nothing is."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is {value}, and JSON has no such number"
    if id(value) in above:
        return f"{path} contains itself"
    if len(above) > 500:
        return f"{path[:80]}... is nested too deeply"
    above = [*above, id(value)]
    if isinstance(value, dict):
        for key, item in value.items():
            if not (key is None or isinstance(key, (str, int, float, bool))):
                return f"{path} has a key of type {type_name(key)}; keys are texts"
            wrong = _find(item, f"{path}[{key!r}]", above)
            if wrong:
                return wrong
        return None
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            wrong = _find(item, f"{path}[{i}]", above)
            if wrong:
                return wrong
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            wrong = _find(getattr(value, field.name), f"{path}.{field.name}", above)
            if wrong:
                return wrong
        return None
    try:
        converted = _convert(value)
    except TypeError:
        hint = next((text for kind, text in _HINTS.items() if isinstance(value, kind)), "")
        return f"{path} is of type {type_name(value)}" + (f"; {hint}" if hint else "")
    return _find(converted, path, above)


def type_name(value: Any) -> str:
    """The name of a value's type, with its module unless it is built in."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
