"""Parameters of a class: values that its instances are made with."""

from __future__ import annotations

import json
import typing
from typing import Any, TypeVar, overload

from .errors import ArgumentError, InvalidError

T = TypeVar("T")

_MISSING: Any = object()

# The types whose values are checked; a parameter of any other type takes what JSON gives it.
_CHECKED: dict[object, tuple[type, ...]] = {str: (str,), int: (int,), float: (float, int), bool: (bool,)}


class Parameter:
    """What stands in the class body for a parameter. On an object it gives the value, or the default."""

    def __init__(self, default: Any) -> None:
        self.default = default
        self.name = ""

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is _MISSING

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        if self.required:
            raise AttributeError(f"the parameter {self.name} of {owner.__name__} has no value and no default")
        return self.default


@overload
def parameter(*, default: T) -> T: ...
@overload
def parameter() -> Any: ...
def parameter(*, default: Any = _MISSING) -> Any:
    """Declares a parameter of a class: `size: int = thaw.parameter(default=3)`.

    Parameters are set before __init__ runs, and are part of what a snapshot is made for. Values come from JSON; those of type str, int,
    float and bool are checked.
    """
    return Parameter(default)


def parameters(cls: type) -> dict[str, Parameter]:
    """The parameters of a class, base classes first."""
    found: dict[str, Parameter] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Parameter):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def types(cls: type) -> dict[str, Any]:
    """The types of a class's parameters, as far as their annotations can be evaluated; Any for the rest."""
    hints: dict[str, Any] = {}
    try:
        hints = typing.get_type_hints(cls)
    except Exception:
        # An annotation that names something that is only there for the type checker.
        for base in reversed(cls.__mro__):
            hints.update(vars(base).get("__annotations__", {}))
    return {name: hints.get(name, Any) for name in parameters(cls)}


def check(cls: type) -> None:
    """Raises InvalidError if a default does not have the parameter's type."""
    kinds = types(cls)
    for name, what in parameters(cls).items():
        if not what.required and what.default is not None and not _fits(what.default, kinds[name]):
            raise InvalidError(f"the default of {cls.__name__}.{name} is {what.default!r}, which is no {kinds[name].__name__}")


def assign(instance: object, values: dict[str, Any]) -> None:
    """Sets the parameters of a new object. Raises ArgumentError for unknown names, missing values and wrong types."""
    cls = type(instance)
    known, kinds = parameters(cls), types(cls)
    unknown = [name for name in values if name not in known]
    if unknown:
        has = f"its parameters are {', '.join(known)}" if known else "it has none"
        raise ArgumentError(f"{cls.__name__} has no parameter {unknown[0]}: {has}")
    for name, what in known.items():
        if name not in values:
            if what.required:
                raise ArgumentError(f"{cls.__name__} needs a value for its parameter {name}")
            continue
        value = values[name]
        if not _fits(value, kinds[name]):
            raise ArgumentError(f"the parameter {name} of {cls.__name__} is {value!r}, which is no {kinds[name].__name__}")
        setattr(instance, name, float(value) if kinds[name] is float else value)


def from_text(cls: type, name: str, text: str) -> Any:
    """The value that somebody means who writes name=text: by the parameter's type, else as JSON, else the text itself."""
    kind = types(cls).get(name, Any)
    if kind is str:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _fits(value: object, kind: Any) -> bool:
    expected = _CHECKED.get(kind) if isinstance(kind, type) else None
    if expected is None:
        return True
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, expected)
