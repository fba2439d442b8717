"""What an instance knows of its start: whether it was restored, which one of the restores it is, and the environment it got.

It is filled in once, when the host says boot, before any hook of the author's runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Mapping


@dataclass
class Boot:
    """The fields of the boot command that authors can ask for."""

    restored: bool = False
    generation: str = ""
    frozen_at: float | None = None
    env: dict[str, str | None] = field(default_factory=dict)


_current = Boot()


def set_boot(boot: Boot) -> None:
    """Fills in what the functions below answer."""
    global _current
    _current = boot


def is_restored() -> bool:
    """Whether this process came out of a snapshot. False in a cold start, and before the memory is frozen."""
    return _current.restored


def generation() -> str:
    """A text of 32 hexadecimal digits that no other instance has, from its start on. Empty before the memory is frozen."""
    return _current.generation


def snapshot_age() -> float | None:
    """For how many seconds the memory of this process was frozen, and has run since; None if it did not come out of a snapshot.

    By the wall clock: what was cached with a time to live before the freeze may be as old as this.
    """
    if not _current.restored or _current.frozen_at is None:
        return None
    return max(0.0, time.time() - _current.frozen_at)


def restore_env() -> Mapping[str, str | None]:
    """The environment variables that came with the start, secrets among them; None is a variable that was removed."""
    return dict(_current.env)
