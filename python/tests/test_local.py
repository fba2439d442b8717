"""Running without a server: python3 -m thaw run, and started() in tests."""

from __future__ import annotations

import asyncio
import json

import pytest

import thaw
from conftest import Apps

APP = """
import thaw
app = thaw.App("local")

@app.cls(enable_memory_snapshot=True)
class Thing:
    size: int = thaw.parameter(default=3)
    name: str = thaw.parameter(default="a")
    @thaw.enter(snap=True)
    def load(self): print("* load", thaw.is_restored())
    @thaw.enter()
    def setup(self): print("* setup", len(thaw.generation()), thaw.device())
    @thaw.exit()
    def bye(self): print("* bye")
    @thaw.method()
    def call(self, x, y=0): return [self.size, self.name, x, y]
    @thaw.method()
    async def slow(self): return 1
    @thaw.method()
    def fail(self): raise ValueError("no")
    @thaw.web_endpoint()
    def page(self, request): return {"method": request.method, "got": request.json() if request.body else None}

@app.function()
def double(x: int): return 2 * x
"""


@pytest.mark.parametrize(
    "arguments, output",
    [
        (["Thing.call", "--json", '{"x": 1}'], [3, "a", 1, 0]),
        (["Thing.call", "--json", "[1, 2]", "--param", "size=5", "--param", "name=7"], [5, "7", 1, 2]),
        (["Thing.slow"], 1),
        (["double", "--json", '{"x": 4}'], 8),
        (["double.double", "--json", "[4]"], 8),
        (["Thing.page"], {"method": "GET", "got": None}),
        (["Thing.page", "--json", "[1]"], {"method": "POST", "got": [1]}),
    ],
)
def test_a_call_prints_its_result_alone(arguments: list[str], output: object, apps: Apps) -> None:
    apps.write(APP)
    done = apps.python("-m", "thaw", "run", "app.py::" + arguments[0], *arguments[1:])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == output


def test_hooks_run_in_their_order(apps: Apps) -> None:
    apps.write(APP)
    done = apps.python("-m", "thaw", "run", "app.py::Thing.slow")
    assert [line for line in done.stderr.splitlines() if line.startswith("*")] == ["* load False", "* setup 32 cpu", "* bye"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["Thing"], "thaw: Thing has several methods: say which one, as Thing.call"),
        (["Thing.none"], "thaw: Thing has no method none: it has call, slow, fail, page"),
        (["None.call"], "thaw: the app local has no object None"),
        (["Thing.call"], "thaw: call(x, y=0): missing a required argument: 'x'"),
        (["Thing.call", "--json", "{"], "thaw: the arguments are not JSON"),
        (["Thing.call", "--json", "1"], "thaw: the arguments are 1"),
        (["Thing.call", "--json", "[1]", "--param", "size"], "thaw: --param size: write NAME=VALUE"),
        (["Thing.call", "--json", "[1]", "--param", "size=x"], "thaw: the parameter size of Thing is 'x', which is no int"),
        (["double", "--json", "[1]", "--param", "a=b"], "thaw: double is a function, and has no parameters"),
    ],
)
def test_what_cannot_be_called_is_told_in_a_line(arguments: list[str], message: str, apps: Apps) -> None:
    apps.write(APP)
    done = apps.python("-m", "thaw", "run", "app.py::" + arguments[0], *arguments[1:])
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_exception_is_shown_with_the_authors_frames_and_exit_methods_run(apps: Apps) -> None:
    apps.write(APP)
    done = apps.python("-m", "thaw", "run", "app.py::Thing.fail")
    assert done.returncode == 1
    assert "ValueError: no" in done.stderr and "app.py" in done.stderr and "thaw/" not in done.stderr
    assert "* bye" in done.stderr


class Library:
    """An object as an author's test would have it."""

    size: int = thaw.parameter(default=3)

    @thaw.enter(snap=True)
    def load(self) -> None:
        self.log = ["load"]

    @thaw.enter()
    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.log.append("setup")

    @thaw.exit()
    def bye(self) -> None:
        self.log.append("bye")

    @thaw.method()
    def call(self) -> int:
        return self.size


def test_started_gives_an_object_between_its_hooks() -> None:
    with thaw.started(Library, size=4) as library:
        assert library.call() == 4
        assert library.log == ["load", "setup"]
    assert library.log == ["load", "setup", "bye"]


def test_started_ends_what_a_failing_test_leaves() -> None:
    with pytest.raises(ValueError, match="mine"):
        with thaw.started(Library) as library:
            raise ValueError("mine")
    assert library.log[-1] == "bye"


def test_a_declared_class_is_an_ordinary_class() -> None:
    library = Library()
    assert library.size == 3 and library.call() == 3
    library.size = 5
    assert library.call() == 5
