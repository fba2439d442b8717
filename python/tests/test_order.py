"""The order of hooks: over base classes, over stages, and what still runs when one fails."""

from __future__ import annotations

import textwrap

import pytest

from conftest import Apps

# Says which hook runs; every class below has a method to call.
HEAD = """
import thaw

def say(*words):
    print("*", *words)

app = thaw.App("order")
on = app.cls(enable_memory_snapshot=True)
"""

ORDERS = {
    "hooks run in the order in which they are written, all snap=True ones before the others": (
        """
        @on
        class Thing:
            @thaw.enter()
            def a(self): say("a")
            @thaw.enter(snap=True)
            def b(self): say("b")
            @thaw.exit()
            def c(self): say("c")
            @thaw.enter(snap=True)
            def d(self): say("d")
            @thaw.enter(snap=False)
            def e(self): say("e")
            @thaw.exit()
            def f(self): say("f")
            @thaw.method()
            def call(self): say("call")
        """,
        "b d | a e call c f",
    ),
    "a base class runs before the class that derives from it": (
        """
        class Base:
            @thaw.enter(snap=True)
            def z(self): say("z")
            @thaw.exit()
            def y(self): say("y")

        @on
        class Thing(Base):
            @thaw.enter(snap=True)
            def a(self): say("a")
            @thaw.exit()
            def b(self): say("b")
            @thaw.method()
            def call(self): say("call")
        """,
        "z a | call y b",
    ),
    "an override keeps the place of what it overrides, and replaces the body": (
        """
        class Base:
            @thaw.enter(snap=True)
            def first(self): say("base")
            @thaw.enter(snap=True)
            def second(self): say("second")

        @on
        class Thing(Base):
            @thaw.enter(snap=True)
            def third(self): say("third")
            @thaw.enter(snap=True)
            def first(self): say("override")
            @thaw.method()
            def call(self): say("call")
        """,
        "override second third | call",
    ),
    "an override without the decorator is still the hook": (
        """
        class Base:
            @thaw.enter(snap=True)
            def first(self): say("base")
            @thaw.enter(snap=True)
            def second(self): say("second")

        @on
        class Thing(Base):
            def first(self): say("override"); super().first()
            @thaw.method()
            def call(self): say("call")
        """,
        "override base second | call",
    ),
    "an override may move to the other side of the freeze": (
        """
        class Base:
            @thaw.enter(snap=True)
            def first(self): say("base")
            @thaw.enter(snap=False)
            def second(self): say("second")

        @on
        class Thing(Base):
            @thaw.enter(snap=False)
            def first(self): say("override")
            @thaw.method()
            def call(self): say("call")
        """,
        "| override second call",
    ),
    "a hook that is set to None is none": (
        """
        class Base:
            @thaw.enter(snap=True)
            def first(self): say("base")

        @on
        class Thing(Base):
            first = None
            @thaw.method()
            def call(self): say("call")
        """,
        "| call",
    ),
    "with several bases the order is that of the method resolution, from its end": (
        """
        class Root:
            @thaw.enter(snap=True)
            def root(self): say("root")
        class Left(Root):
            @thaw.enter(snap=True)
            def left(self): say("left")
        class Right(Root):
            @thaw.enter(snap=True)
            def right(self): say("right")

        @on
        class Thing(Left, Right):
            @thaw.enter(snap=True)
            def own(self): say("own")
            @thaw.method()
            def call(self): say("call")
        """,
        "root right left own | call",
    ),
    "async hooks have ended before the next hook begins": (
        """
        import asyncio

        @on
        class Thing:
            @thaw.enter(snap=True)
            async def a(self):
                await asyncio.sleep(0)
                say("a")
            @thaw.enter(snap=True)
            def b(self): say("b")
            @thaw.enter()
            async def c(self):
                await asyncio.sleep(0)
                say("c")
            @thaw.enter()
            def d(self): say("d")
            @thaw.exit()
            async def e(self):
                await asyncio.sleep(0)
                say("e")
            @thaw.exit()
            def f(self): say("f")
            @thaw.method()
            async def call(self): say("call")
        """,
        "a b | c d call e f",
    ),
    "__init__ runs before all hooks, with the parameters set": (
        """
        @on
        class Thing:
            size: int = thaw.parameter(default=3)
            def __init__(self): say("init", self.size)
            @thaw.enter(snap=True)
            def a(self): say("a")
            @thaw.method()
            def call(self): say("call")
        """,
        "init-3 a | call",
    ),
}

LIBRARIES = """
    for name in ("b1", "b2"):
        thaw.before_snapshot(lambda name=name: say(name))
    for name in ("a1", "a2"):
        thaw.after_restore(lambda name=name: say(name))
    thaw.register_reconnect(lambda: say("r1"))

    @thaw.after_restore
    async def a3(): say("a3", thaw.is_restored(), thaw.generation()[:2])

    def warm(thing):
        say("warm")
        return thing.call()

    @app.cls(enable_memory_snapshot=True, warmup=warm)
    class Thing:
        @thaw.enter(snap=True)
        def snap(self): say("snap", thaw.is_restored(), thaw.generation())
        @thaw.enter()
        def enter(self): say("enter")
        @thaw.method()
        async def call(self): say("call")
"""


def words(lines: list[str]) -> str:
    return " ".join(line.replace(" ", "-") for line in lines)


@pytest.mark.parametrize("name", ORDERS)
def test_order(name: str, apps: Apps) -> None:
    code, expected = ORDERS[name]
    host = apps.host(HEAD + textwrap.dedent(code))
    assert host.load()["event"] == "loaded"
    before = len(host.lines())
    assert host.boot()["event"] == "ready"
    assert host.value("call") is None
    assert host.end() == ([{"event": "stopped"}], 0)
    lines = host.lines()
    assert " ".join(filter(None, (words(lines[:before]), "|", words(lines[before:])))) == expected


@pytest.mark.parametrize("name", ORDERS)
def test_without_a_server_the_order_is_the_same(name: str, apps: Apps) -> None:
    code, expected = ORDERS[name]
    apps.write(HEAD + textwrap.dedent(code))
    done = apps.python("-m", "thaw", "run", "app.py::Thing.call")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "null\n"
    lines = [line[2:] for line in done.stderr.splitlines() if line.startswith("* ")]
    assert words(lines) == " ".join(expected.replace("|", "").split())


def test_a_library_closes_in_reverse_order_and_opens_in_order(apps: Apps) -> None:
    host = apps.host(HEAD + textwrap.dedent(LIBRARIES))
    host.start(restored=True, generation="ab" * 16)
    assert words(host.lines()) == "snap-False- warm call b2 b1 r1 a1 a2 a3-True-ab enter"


def test_a_process_that_goes_on_after_its_freeze_opens_again_what_it_closed(apps: Apps) -> None:
    host = apps.host(HEAD + textwrap.dedent(LIBRARIES))
    assert host.load()["event"] == "loaded"
    assert host.ask("prepare")["event"] == "prepared"
    assert host.boot(restored=False)["event"] == "ready"
    assert words(host.lines()).endswith("b2 b1 r1 a1 a2 a3-False-00 enter")


def test_a_cold_start_runs_no_hooks_of_a_restore(apps: Apps) -> None:
    host = apps.host(HEAD + textwrap.dedent(LIBRARIES))
    host.start()
    assert words(host.lines()) == "snap-False- enter"


# An app in which each stage can be made to fail.
STAGES = """
    import os

    def stage(name):
        say(name)
        if os.environ["FAIL"] == name:
            raise ValueError("at " + name)

    stage("import")
    thaw.before_snapshot(lambda: stage("before_snapshot"))
    thaw.after_restore(lambda: stage("after_restore"))

    @app.cls(enable_memory_snapshot=True, warmup="warm")
    class Thing:
        def __init__(self): stage("construct")
        @thaw.enter(snap=True)
        def a(self): stage("enter_snap")
        @thaw.enter(snap=True)
        ASYNC def b(self): stage("enter_snap2")
        ASYNC def warm(self): stage("warmup")
        @thaw.enter()
        ASYNC def c(self): stage("enter")
        @thaw.enter()
        def d(self): stage("enter2")
        @thaw.exit()
        ASYNC def e(self): stage("exit")
        @thaw.exit()
        def f(self): stage("exit2")
        @thaw.method()
        ASYNC def call(self): stage("call")
"""

ALL = ["import", "construct", "enter_snap", "enter_snap2", "warmup", "before_snapshot", "after_restore", "enter", "enter2"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("restored", [True, False])
@pytest.mark.parametrize("fails", ALL)
def test_a_stage_that_fails_is_the_last_one_and_exit_methods_do_not_run(fails: str, restored: bool, kind: str, apps: Apps) -> None:
    host = apps.host(HEAD + textwrap.dedent(STAGES.replace("ASYNC ", "async " if kind == "async" else "")), FAIL=fails)
    stage = fails.rstrip("2")
    events = [host.load()]
    if events[-1]["event"] != "failed":
        events.append(host.ask("prepare"))
    if events[-1]["event"] != "failed":
        events.append(host.boot(restored))
    failed = events[-1]
    assert (failed["event"], failed["stage"], failed["type"], failed["message"]) == ("failed", stage, "ValueError", "at " + fails)
    assert "app.py" in failed["traceback"] and "thaw/" not in failed["traceback"]
    cold = restored and stage in ("after_restore", "enter")
    assert host.rest() == ([], 222 if cold else 1)
    assert host.lines() == ALL[: ALL.index(fails) + 1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_all_exit_methods_run_though_one_fails(kind: str, apps: Apps) -> None:
    host = apps.host(HEAD + textwrap.dedent(STAGES.replace("ASYNC ", "async " if kind == "async" else "")), FAIL="exit")
    host.start()
    events, code = host.end()
    assert [(e["event"], e["stage"], e["message"]) for e in events] == [("failed", "exit", "at exit")]
    assert code == 1
    assert host.lines()[-2:] == ["exit", "exit2"]


def test_a_call_that_fails_ends_nothing(apps: Apps) -> None:
    host = apps.host(HEAD + textwrap.dedent(STAGES.replace("ASYNC ", "")), FAIL="call")
    host.start()
    for _ in range(2):
        assert host.call("call")["kind"] == "exception"
    assert host.end() == ([{"event": "stopped"}], 0)
    assert host.lines()[-2:] == ["exit", "exit2"]
