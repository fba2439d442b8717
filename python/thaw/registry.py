"""Hooks that are functions, for libraries: what to do before the memory of the process is frozen, and after it is restored."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from .errors import InvalidError

F = TypeVar("F", bound=Callable[[], Any])

_before: list[Callable[[], Any]] = []
_reconnect: list[Callable[[], Any]] = []
_after: list[Callable[[], Any]] = []


def before_snapshot(function: F) -> F:
    """Registers a function to run before the memory is frozen, after the warm-up; those registered last run first.

    It closes what cannot be frozen: connections above all. It may be async. Returns the function, so it can be used as a decorator.
    """
    _before.append(_checked(function))
    return function


def after_restore(function: F) -> F:
    """Registers a function to run after a restore, before the enter(snap=False) methods; those registered first run first.

    Randomness, environment and the number of CPUs are renewed before. It runs, too, if before_snapshot functions have run and the same
    process goes on. It may be async. An instance in which it raises is thrown away, and a cold one started instead.
    """
    _after.append(_checked(function))
    return function


def register_reconnect(function: F) -> F:
    """Registers a function that opens connections again. It is an after_restore function that runs before all those."""
    _reconnect.append(_checked(function))
    return function


def before_snapshot_functions() -> list[Callable[[], Any]]:
    """In the order in which they run."""
    return list(reversed(_before))


def after_restore_functions() -> list[Callable[[], Any]]:
    """In the order in which they run: connections first."""
    return [*_reconnect, *_after]


def clear() -> None:
    """Forgets all functions: for tests."""
    for functions in (_before, _reconnect, _after):
        functions.clear()


def _checked(function: object) -> Any:
    if not callable(function):
        raise InvalidError(f"{function!r} cannot be called: these hooks are functions without arguments")
    return function
