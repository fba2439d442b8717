"""Making a process ready to be frozen: its memory in order, and what is needed after the restore loaded before it."""

from __future__ import annotations

from typing import Any

from . import cpus, generators, heap, obstacles


def report(instance: object | None = None, name: str = "") -> dict[str, Any]:
    """Puts the memory in order and says what the host should know: the fields problems and generators of the event prepared."""
    cpus.remember()
    problems = [problem.fields() for problem in obstacles.find()]
    found = generators.unregistered(instance, name)
    # Last: what the lines above made is garbage by now.
    heap.settle()
    return {"problems": problems, "generators": found}
