"""Two restores of one process draw nothing alike; and with reseeding off everything alike, or the comparison would prove nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from conftest import HANGS_AFTER, PACKAGE, Apps, environment, in_root_file_system, privileged

PROGRAM = "two_restores.py"

# What asks for the pid and starts afresh if it is another one: alike only where the copies have the pid of the original.
BY_PID = {"ssl", "tempfile", "semaphores"}


def here(*arguments: str) -> dict[str, Any]:
    """The program's answer, of this Python."""
    command = [sys.executable, str(PACKAGE / "tests" / PROGRAM), *arguments]
    if privileged():
        command = ["unshare", "--pid", "--fork", "--kill-child", *command]
    return _answer(subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=HANGS_AFTER))


def there(*arguments: str) -> dict[str, Any]:
    """The program's answer, of the Python that has numpy and torch."""
    return _answer(in_root_file_system(f"/mnt/python/tests/{PROGRAM}", *arguments))


PYTHONS = [pytest.param(here, (), id="here"), pytest.param(there, ("numpy", "torch"), id="root file system")]


@pytest.mark.parametrize("python, libraries", PYTHONS)
def test_two_restores_draw_nothing_alike(python: Any, libraries: tuple[str, ...]) -> None:
    first, second = python("reseed", *libraries)["copies"]
    assert [name for name in first if first[name] == second[name]] == []


@pytest.mark.parametrize("python, libraries", PYTHONS)
def test_without_reseeding_they_draw_everything_alike(python: Any, libraries: tuple[str, ...]) -> None:
    answer = python("keep", *libraries)
    first, second = answer["copies"]
    differ = {name for name in first if first[name] != second[name]}
    assert differ == (set() if answer["pid"] else BY_PID)


GLOBALS = """
import random
import thaw

app = thaw.App("globals")
rng = random.Random(1)
same = rng
registered = thaw.register_rng(random.Random(2))
system = random.SystemRandom()
several = [random.Random(3), 1]
by_name = {"a": random.Random(4)}

@app.cls(enable_memory_snapshot=True)
class Thing:
    @thaw.enter(snap=True)
    def load(self):
        self.rng = random.Random(5)
        self.same = registered
    @thaw.method()
    def call(self): pass
"""


def test_generators_that_nobody_registered_are_named(apps: Apps) -> None:
    host = apps.host(GLOBALS)
    host.load()
    found = host.ask("prepare")["generators"]
    assert sorted(found, key=lambda g: g["where"]) == [
        {"where": where, "type": "random.Random"} for where in ("Thing.rng", "app.by_name['a']", "app.rng", "app.several[0]")
    ]


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answer, dict)
    return answer
