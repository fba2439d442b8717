"""Several calls at once: in threads, on the loop, and both. The calls wait for each other, so that they only end if they run at once."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Apps, Host

APP = """
import asyncio, threading
import thaw

app = thaw.App("concurrency")

barrier = threading.Barrier(3)
go = threading.Event()

@app.cls(enable_memory_snapshot=True, concurrency=3)
class Threads:
    @thaw.method()
    def meet(self): return [barrier.wait() >= 0, threading.current_thread() is threading.main_thread()]
    @thaw.method()
    def wait(self): go.wait(); return "waited"
    @thaw.method()
    def release(self): go.set()
    @thaw.method()
    def fail(self): raise ValueError(threading.current_thread().name)
    @thaw.exit()
    def bye(self): print("* bye")

@app.cls(enable_memory_snapshot=True, concurrency=3)
class Both(Threads):
    @thaw.enter(snap=True)
    async def before(self):
        self.loop = asyncio.get_running_loop()
        self.condition = asyncio.Event()
        self.waiting = 0
    @thaw.enter()
    async def after(self):
        self.same = self.loop is asyncio.get_running_loop()
        self.ticks = 0
        self.task = asyncio.create_task(self.tick())
    async def tick(self):
        try:
            while True:
                await asyncio.sleep(0)
                self.ticks += 1
        finally:
            print("* task ended")
    @thaw.method()
    async def meet_on_loop(self):
        self.waiting += 1
        if self.waiting == 3:
            self.condition.set()
        await self.condition.wait()
        return [self.same, threading.current_thread() is threading.main_thread(), self.loop is asyncio.get_running_loop()]
    @thaw.method()
    async def fail_on_loop(self): raise ValueError("on the loop")
    @thaw.method()
    async def cancel(self): raise asyncio.CancelledError()
    @thaw.method()
    async def background(self):
        before = self.ticks
        while self.ticks < before + 10:
            await asyncio.sleep(0)
        return True

@app.cls(enable_memory_snapshot=True)
class OneAtATime(Both):
    @thaw.method()
    def own_loop(self):
        # Possible only while no loop runs in this thread.
        async def three(): return 3
        return [asyncio.run(three()), threading.current_thread() is threading.main_thread(), self.ticks > 0]
"""


def all_of(host: Host, number: int) -> dict[int, dict[str, Any]]:
    return {event["id"]: event for event in (host.event() for _ in range(number))}


@pytest.mark.parametrize("name", ["Threads", "Both"])
@pytest.mark.parametrize("restored", [False, True])
def test_calls_run_at_once_in_threads(name: str, restored: bool, apps: Apps) -> None:
    host = apps.host(APP)
    host.start(name, restored=restored)
    for i in range(3):
        host.say("call", id=i, method="meet")
    assert [answer["value"] for answer in all_of(host, 3).values()] == [[True, False]] * 3


@pytest.mark.parametrize("name", ["Both", "OneAtATime"])
@pytest.mark.parametrize("restored", [False, True])
def test_calls_run_at_once_on_the_one_loop(name: str, restored: bool, apps: Apps) -> None:
    host = apps.host(APP)
    host.start(name, restored=restored)
    for i in range(3):
        host.say("call", id=i, method="meet_on_loop")
    assert [answer["value"] for answer in all_of(host, 3).values()] == [[True, True, True]] * 3


@pytest.mark.parametrize("name", ["Threads", "Both"])
def test_a_slow_call_holds_up_no_other(name: str, apps: Apps) -> None:
    host = apps.host(APP)
    host.start(name)
    host.say("call", id=1, method="wait")
    assert host.ask("call", id=2, method="fail")["message"].startswith("thaw-call")
    host.say("call", id=3, method="release")
    answers = all_of(host, 2)
    assert answers[1]["value"] == "waited"


@pytest.mark.parametrize("name", ["Threads", "Both"])
@pytest.mark.parametrize("end", ["stop", "end of input"])
def test_running_calls_finish_before_the_exit_methods(name: str, end: str, apps: Apps) -> None:
    host = apps.host(APP)
    host.start(name)
    host.say("call", id=1, method="wait")
    host.say("call", id=2, method="release")
    if end == "stop":
        host.say("stop")
    events, code = host.end()
    assert {e.get("id") for e in events[:-1]} == {1, 2} and events[-1] == {"event": "stopped"} and code == 0
    assert host.lines()[0] == "bye"


def test_tasks_of_the_authors_run_between_calls_and_end_at_the_end(apps: Apps) -> None:
    host = apps.host(APP)
    host.start("Both", restored=True)
    assert host.value("background") is True
    assert host.call("fail_on_loop")["message"] == "on the loop"
    assert host.call("cancel")["type"] == "CancelledError"
    assert host.end() == ([{"event": "stopped"}], 0)
    assert host.lines() == ["bye", "task ended"]


def test_one_at_a_time_an_ordinary_method_has_the_main_thread_and_no_running_loop(apps: Apps) -> None:
    host = apps.host(APP)
    host.start("OneAtATime")
    assert host.value("background") is True
    for _ in range(3):
        assert host.value("own_loop") == [3, True, True]
    assert host.value("background") is True
