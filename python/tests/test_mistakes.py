"""An author's mistakes: each is told with the author's lines, and with what to write instead."""

from __future__ import annotations

import json
import os
import re
from typing import Any, cast

import pytest

from conftest import Apps
from thaw import serve
from thaw.conversation import Conversation
from thaw.life import Life

HEAD = "import thaw\napp = thaw.App('mistakes')\n"
CALL = "    @thaw.method()\n    def call(self): pass\n"

DECLARATIONS = {
    "a snap hook without the flag": (
        "@app.cls()\nclass Thing:\n    @thaw.enter(snap=True)\n    def load(self): pass\n" + CALL,
        "    @app.cls(enable_memory_snapshot=True)\n    class Thing:\n",
    ),
    "an inherited snap hook without the flag": (
        "class Base:\n    @thaw.enter(snap=True)\n    def load(self): pass\n@app.cls\nclass Thing(Base):\n" + CALL,
        "@app.cls(enable_memory_snapshot=True)",
    ),
    "enter without its parentheses": (
        "class Thing:\n    @thaw.enter\n    def load(self): pass\n",
        "needs its parentheses: write @thaw.enter(snap=True), or @thaw.enter()",
    ),
    "enter with a positional argument": ("class Thing:\n    @thaw.enter(True)\n    def load(self): pass\n", "takes its options by name"),
    "two decorators on one method": (
        "class Thing:\n    @thaw.method()\n    @thaw.enter(snap=True)\n    def load(self): pass\n",
        "Thing.load has both @thaw.enter(snap=True) and @thaw.method()",
    ),
    "a hook that wants arguments": (
        "@app.cls()\nclass Thing:\n    @thaw.enter()\n    def load(self, size): pass\n" + CALL,
        "Thing.load is marked @thaw.enter(snap=False) and is called without arguments, but has the signature (self, size)",
    ),
    "a hook that yields": ("@app.cls()\nclass Thing:\n    @thaw.enter()\n    def load(self): yield\n" + CALL, "and yields"),
    "a constructor that wants arguments": (
        "@app.cls()\nclass Thing:\n    def __init__(self, size): pass\n" + CALL,
        "Declare parameters in the class body",
    ),
    "a constructor that takes a parameter, too": (
        "@app.cls()\nclass Thing:\n    size: int = thaw.parameter(default=1)\n    def __init__(self, size=2): self.size = size\n" + CALL,
        "Thing.__init__ takes size, and nobody gives it",
    ),
    "a class without methods": ("@app.cls()\nclass Thing:\n    pass\n", "Thing has nothing to call"),
    "a method that yields": ("@app.cls()\nclass Thing:\n    @thaw.method()\n    def call(self): yield 1\n", "a call has one result"),
    "a web endpoint with two arguments": (
        "@app.function()\n@thaw.web_endpoint()\ndef page(a, b): pass\n",
        "is called with one thaw.Request, but has the signature (a, b)",
    ),
    "a function with a hook's decorator": ("@app.function()\n@thaw.enter()\ndef f(): pass\n", "a function that must prepare something becomes a class"),
    "a class below function": ("@app.function()\nclass Thing: pass\n", "a class gets @app.cls()"),
    "a function below cls": ("@app.cls()\ndef f(): pass\n", "a function gets @app.function()"),
    "no concurrency": ("@app.cls(concurrency=0)\nclass Thing:\n" + CALL, "concurrency is 0"),
    "a memory that is no size": ("@app.cls(memory='lots')\nclass Thing:\n" + CALL, "memory is 'lots'"),
    "a GPU that does not exist": ("@app.cls(gpu='h900')\nclass Thing:\n" + CALL, "gpu is 'h900'"),
    "a secret's value": ("@app.cls(secrets='TOKEN')\nclass Thing:\n" + CALL, "it is a list of names"),
    "a warm-up that does not exist": (
        "@app.cls(enable_memory_snapshot=True, warmup='warm')\nclass Thing:\n" + CALL,
        "Thing has no method warm",
    ),
    "a warm-up that wants arguments": (
        "@app.cls(enable_memory_snapshot=True, warmup='go')\nclass Thing:\n    @thaw.method()\n    def go(self, x): pass\n",
        "warmup=lambda thing: thing.go(...)",
    ),
    "a warm-up without a snapshot": ("@app.cls(warmup='call')\nclass Thing:\n" + CALL, "set enable_memory_snapshot=True, too"),
    "a default of another type": ("@app.cls()\nclass Thing:\n    size: int = thaw.parameter(default='x')\n" + CALL, "which is no int"),
    "two objects of one name": (
        "def make():\n    @app.function()\n    def f(): pass\nmake()\n@app.function()\ndef f(): pass\n",
        "two objects with the name f",
    ),
    "a template that is a text": ("thaw.Template('torch')\n", 'Template(["numpy", "torch"])'),
    "a generator nobody knows": ("thaw.register_rng(object())\n", "is no known generator"),
    "a hook that cannot be called": ("thaw.after_restore(3)\n", "3 cannot be called"),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_declaration_that_cannot_work_is_an_error_where_it_is_written(name: str, apps: Apps) -> None:
    code, message = DECLARATIONS[name]
    apps.write(HEAD + code)
    done = apps.python("-m", "thaw.describe", "app.py")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "InvalidError"
    assert message in error["message"]
    assert "app.py" in error["traceback"] and "/thaw/" not in error["traceback"]


@pytest.mark.parametrize(
    "code, message",
    [
        ("import thaw\n", "app.py has no app"),
        ("import thaw\na = thaw.App('a')\nb = thaw.App('b')\n", "app.py has 2 apps (a, b)"),
        ("import thaw\na = thaw.App('a')\n", "the app a is empty"),
    ],
)
def test_a_file_without_an_app_is_told(code: str, message: str, apps: Apps) -> None:
    apps.write(code)
    assert message in json.loads(apps.python("-m", "thaw.describe", "app.py").stdout)["error"]["message"]


@pytest.mark.parametrize("name", ["json.py", "thaw.py", "my-app.py"])
def test_a_file_whose_name_cannot_be_imported_is_told(name: str, apps: Apps) -> None:
    (apps.folder / "sub").mkdir()
    apps.write("", "sub/" + name)
    assert "rename the file" in json.loads(apps.python("-m", "thaw.describe", "sub/" + name).stdout)["error"]["message"]


CALLS = """
import dataclasses, thaw
app = thaw.App("mistakes")

def deep(x):
    return 1 / x

class Unspeakable(Exception):
    def __str__(self): raise RuntimeError("no words")

@dataclasses.dataclass
class Point:
    x: object

@app.cls()
class Thing:
    @thaw.method()
    def divide(self, x): return deep(x)
    @thaw.method()
    async def divide_async(self, x): return deep(x)
    @thaw.method()
    def chained(self):
        try:
            deep(0)
        except ZeroDivisionError as err:
            raise ValueError("outer") from err
    @thaw.method()
    def speechless(self): raise Unspeakable()
    @thaw.method()
    def set(self): return {"a": [1, {2}]}
    @thaw.method()
    def point(self): return Point({"k": Point(b"x")})
    @thaw.method()
    def nan(self): return [1.0, float("nan")]
    @thaw.method()
    def loop(self):
        x = []
        x.append(x)
        return x
    @thaw.method()
    def key(self): return {(1, 2): 3}
    @thaw.method()
    def self(self): return self
    @thaw.method()
    def lazy(self): return (x for x in [])
    @thaw.web_endpoint()
    def page(self, request): return thaw.Response("x", status="ok")
    @thaw.web_endpoint()
    def header(self, request): return thaw.Response("x", headers={"a": "b\\r\\nc: d"})
"""


@pytest.fixture
def host(apps: Apps):  # type: ignore[no-untyped-def]
    started = apps.host(CALLS)
    started.start()
    return started


@pytest.mark.parametrize("method", ["divide", "divide_async"])
def test_an_exception_shows_the_authors_frames_and_no_others(method: str, host) -> None:  # type: ignore[no-untyped-def]
    error = host.call(method, 0)
    assert (error["kind"], error["type"], error["message"]) == ("exception", "ZeroDivisionError", "division by zero")
    frames = [line.strip() for line in error["traceback"].splitlines() if line.startswith("  File")]
    assert [frame.rpartition(", in ")[2] for frame in frames] == [method, "deep"]
    assert host.value(method, 4) == 0.25


def test_causes_are_shown(host) -> None:  # type: ignore[no-untyped-def]
    error = host.call("chained")
    assert "ZeroDivisionError: division by zero" in error["traceback"] and "direct cause" in error["traceback"]
    assert "thaw/" not in error["traceback"]


def test_an_error_that_cannot_say_what_it_is(host) -> None:  # type: ignore[no-untyped-def]
    assert host.call("speechless")["message"] == "<RuntimeError in __str__ of Unspeakable>"


@pytest.mark.parametrize(
    "method, message",
    [
        ("set", "result['a'][1] is of type set; list(...) makes a list of it"),
        ("point", "result.x['k'].x is of type bytes; base64"),
        ("nan", "result[1] is nan, and JSON has no such number"),
        ("loop", "result[0] contains itself"),
        ("key", "result has a key of type tuple; keys are texts"),
        ("self", "result is of type app.Thing"),
        ("lazy", "result is of type generator"),
    ],
)
def test_a_result_that_is_no_json_says_where(method: str, message: str, host) -> None:  # type: ignore[no-untyped-def]
    error = host.call(method)
    assert error["event"] == "error" and error["kind"] == "result" and error["traceback"] == ""
    assert message in error["message"]


@pytest.mark.parametrize("method, message", [("page", "status of the response is 'ok'"), ("header", "a line break in it")])
def test_a_response_that_is_none(method: str, message: str, host) -> None:  # type: ignore[no-untyped-def]
    error = host.ask("http", id=1, method=method, request={})
    assert error["kind"] == "result" and message in error["message"]


def test_a_file_that_does_not_compile_shows_the_line(apps: Apps) -> None:
    host = apps.host("import thaw\nx = = 3\n")
    failed = host.load()
    assert (failed["stage"], failed["type"]) == ("import", "SyntaxError")
    assert "x = = 3" in failed["traceback"] and "importlib" not in failed["traceback"]


LONG = """
import threading
import thaw
app = thaw.App("mistakes")
both = threading.Barrier(2, timeout=60)

@app.cls(concurrency=2)
class Thing:
    @thaw.method()
    def text(self): both.wait(); return "x" * (64 << 20)
    @thaw.web_endpoint()
    def page(self, request): return b"x" * (48 << 20)
    @thaw.method()
    def other(self): both.wait(); return 1
    @thaw.method()
    def error(self): raise ValueError("\\x00" * (2 << 20))
"""


def test_a_result_that_is_too_long_is_an_error_of_its_call_alone(apps: Apps) -> None:
    host = apps.host(LONG)
    host.start()
    host.say("call", id=1, method="text")
    host.say("call", id=2, method="other")
    answers = {answer["id"]: answer for answer in (host.event(), host.event())}
    assert answers[2]["value"] == 1
    page = host.ask("http", id=3, method="page", request={})
    for error in (answers[1], page):
        assert error["event"] == "error" and error["kind"] == "result" and error["traceback"] == ""
        assert "the result is 671" in error["message"] and "the limit is 67108864 bytes" in error["message"]


def test_a_message_that_is_too_long_is_cut(apps: Apps) -> None:
    host = apps.host(LONG)
    host.start()
    error = host.call("error")
    assert error["kind"] == "exception" and error["message"] == "\x00" * (1 << 20) + f"... ({2 << 20} characters)"
    assert "in error" in error["traceback"] and error["traceback"].endswith(" characters)")


class Echo:
    """A life whose method returns what it gets."""

    def bind(self, name: str, kind: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return lambda: args[0]

    def is_async(self, name: str) -> bool:
        return False


def test_the_longest_line_is_one_that_the_host_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 300
    monkeypatch.setattr(serve, "LONGEST_LINE", limit)
    answers, events = os.pipe()
    conversation = Conversation(os.open(os.devnull, os.O_RDONLY), events)
    longest = 0
    for size in range(limit):
        command = {"op": "call", "id": 1, "method": "echo", "args": ["x" * size]}
        serve.Call(cast(Life, Echo()), conversation, command).here()
        line = os.read(answers, 1 << 16)
        event = json.loads(line)
        if event["event"] == "result":
            longest = max(longest, len(line))
        else:
            told = re.search(r"the result is (\d+) bytes", event["message"])
            assert told is not None and int(told[1]) > limit
    for descriptor in (answers, events, conversation.commands):
        os.close(descriptor)
    # The seconds in a line may be of another length in the next.
    assert limit - 10 < longest <= limit
