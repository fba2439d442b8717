"""The decorators for methods, and how they are found again over base classes.

A decorator leaves the function as it is and puts a mark on it: a decorated method can be called, tested and completed by an editor like
any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Literal, TypeVar, overload

from .errors import InvalidError

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["enter", "exit", "method", "web"]

# The attribute that carries a mark.
_MARK = "__thaw_mark__"


@dataclass(frozen=True)
class Mark:
    """What a decorator says of a function. snap has a meaning for enter only."""

    kind: Kind
    snap: bool = False

    def decorator(self) -> str:
        """The decorator as an author writes it."""
        if self.kind == "enter":
            return f"@thaw.enter(snap={self.snap})"
        return {"exit": "@thaw.exit()", "method": "@thaw.method()", "web": "@thaw.web_endpoint()"}[self.kind]


def enter(_forgotten: None = None, /, *, snap: bool = False) -> Callable[[F], F]:
    """Marks a method that runs when an instance starts, before it gets calls.

    With snap=True it runs before the memory is frozen: once for a snapshot, without network and GPU. With snap=False it runs at every start,
    after a restore too. All snap=True methods run before all others; within each of the two, base classes come first, then the
    order in which methods are written. A method that overrides another one keeps its place. The method may be async.
    """
    if _forgotten is not None:
        raise InvalidError(
            "@thaw.enter takes its options by name and needs its parentheses: write @thaw.enter(snap=True), or @thaw.enter() for "
            "a method that runs at every start"
        )
    return lambda function: mark(function, Mark("enter", snap=bool(snap)))


@overload
def exit(function: F, /) -> F: ...
@overload
def exit() -> Callable[[F], F]: ...
def exit(function: F | None = None, /) -> F | Callable[[F], F]:
    """Marks a method that runs when an instance stops, if all its enter methods have succeeded. It may be async."""
    return _optional(function, Mark("exit"))


@overload
def method(function: F, /) -> F: ...
@overload
def method() -> Callable[[F], F]: ...
def method(function: F | None = None, /) -> F | Callable[[F], F]:
    """Marks a method that can be called from outside: arguments from JSON, the result to JSON. It may be async."""
    return _optional(function, Mark("method"))


@overload
def web_endpoint(function: F, /) -> F: ...
@overload
def web_endpoint() -> Callable[[F], F]: ...
def web_endpoint(function: F | None = None, /) -> F | Callable[[F], F]:
    """Marks a method, or a function below @app.function, that answers plain HTTP.

    It takes a thaw.Request and returns a thaw.Response, or a body: a dict or list (sent as JSON), str, bytes, or None. It may be async.
    """
    return _optional(function, Mark("web"))


def _optional(function: F | None, what: Mark) -> F | Callable[[F], F]:
    if function is None:
        return lambda f: mark(f, what)
    return mark(function, what)


def mark(function: F, what: Mark) -> F:
    """Puts a mark on a function. Raises InvalidError if it has one, or is no function."""
    if not callable(function) and not isinstance(function, (staticmethod, classmethod)):
        raise InvalidError(f"{what.decorator()} belongs above a function, not above {function!r}")
    if isinstance(function, type):
        raise InvalidError(f"{what.decorator()} belongs above a method; a class gets @app.cls()")
    before = mark_of(function)
    if before is not None:
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidError(
            f"{name} has both {before.decorator()} and {what.decorator()}: a method has one of them. Let one method call the other."
        )
    setattr(function, _MARK, what)
    return function


def mark_of(value: object) -> Mark | None:
    """The mark of what a class body holds under a name: a function, static method or class method. None if it has none."""
    for candidate in (value, getattr(value, "__func__", None)):
        found = getattr(candidate, "__dict__", {}).get(_MARK)
        if isinstance(found, Mark):
            return found
    return None


def marks(cls: type) -> dict[str, Mark]:
    """The marked names of a class in the order in which they run: base classes first, then as they are written.

    A name that a derived class defines again keeps its place. Its mark is the derived class's if it has one there, and else the
    inherited one: overriding a hook without repeating the decorator replaces its body. A name that is set to something that cannot be
    called is no hook any more.
    """
    found: dict[str, Mark] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            what = mark_of(value)
            if what is not None:
                found[name] = what
            elif name in found and not (callable(value) or isinstance(value, (staticmethod, classmethod))):
                del found[name]
    return found
