"""The protocol, spoken with a real runner over pipes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest

from conftest import Apps, environment

APP = """
import sys, subprocess, threading, os
import thaw

app = thaw.App("runner")

@app.cls(enable_memory_snapshot=True)
class Thing:
    size: int = thaw.parameter(default=3)
    name: str = thaw.parameter(default="none")

    @thaw.enter(snap=True)
    def load(self): self.seen = ["load"]

    @thaw.exit()
    def bye(self): print("* bye")

    @thaw.method()
    def parameters(self): return [self.size, self.name]
    @thaw.method()
    def echo(self, *args, **kwargs): return [args, kwargs]
    @thaw.method()
    def two(self, first: int, second: str = "x") -> str: return second * first
    @thaw.method()
    def shout(self): print("to the log"); sys.stdout.write("no line"); return sys.stdin.read()
    @thaw.method()
    def child(self): return subprocess.run(["cat"], capture_output=True).stdout.decode()
    @thaw.method()
    def quit(self): sys.exit(3)
    @thaw.method()
    def thread(self): return threading.current_thread() is threading.main_thread()
    @thaw.method()
    def big(self, text): return len(text)
    @thaw.method()
    def start(self): return [thaw.is_restored(), thaw.generation(), thaw.snapshot_age() is not None, dict(thaw.restore_env())]
    @thaw.method()
    def env(self, *names): return [os.environ.get(n) for n in names]
    @thaw.method()
    def threads(self): return threading.active_count()
    def helper(self): pass

    @thaw.web_endpoint()
    def hook(self, request):
        return {"method": request.method, "path": request.path, "q": request.query_params, "body": request.text(),
                "type": request.header("Content-Type")}

@app.function()
def double(x: int) -> int:
    return 2 * x

@app.function()
@thaw.web_endpoint()
async def page(request: thaw.Request) -> thaw.Response:
    return thaw.Response("made", status=201, headers={"x-a": "b"})
"""


def test_a_whole_conversation(apps: Apps) -> None:
    host = apps.host(APP)
    loaded = host.load(parameters={"size": 5})
    assert loaded["event"] == "loaded" and set(loaded["seconds"]) == {"import", "construct", "enter_snap"}
    prepared = host.ask("prepare")
    assert prepared["event"] == "prepared" and prepared["problems"] == [] and prepared["generators"] == []
    ready = host.boot(restored=True, generation="f" * 32, frozen_at=1.0, env={"TOKEN": "s", "GONE": None})
    assert ready["event"] == "ready" and set(ready["seconds"]) == {"refresh", "after_restore", "enter"}
    assert host.value("parameters") == [5, "none"]
    assert host.value("start") == [True, "f" * 32, True, {"TOKEN": "s", "GONE": None}]
    assert host.ask("stop") == {"event": "stopped"}
    assert host.rest() == ([], 0)
    assert host.lines() == ["bye"]


def test_a_cold_start_has_a_generation_and_no_age(apps: Apps) -> None:
    host = apps.host(APP)
    host.start(generation="e" * 32)
    assert host.value("start") == [False, "e" * 32, False, {}]


def test_the_environment_of_the_start_is_there(apps: Apps) -> None:
    host = apps.host(APP, OLD="old", GONE="here")
    host.start(env={"NEW": "new", "GONE": None})
    assert host.value("env", "OLD", "NEW", "GONE", "CUDA_VISIBLE_DEVICES") == ["old", "new", None, None]


def test_the_environment_of_load_is_there_when_the_file_is_imported(apps: Apps) -> None:
    host = apps.host("import os, thaw\nvalue = os.environ['MODE']\napp = thaw.App('x')\n@app.function()\ndef mode(): return value\n", MODE="a")
    assert host.load("mode", env={"MODE": "b"})["event"] == "loaded"
    assert host.boot()["event"] == "ready"
    assert host.value("mode") == "b"


def test_a_template_is_imported_frozen_and_then_loaded(apps: Apps) -> None:
    host = apps.host(APP)
    assert host.ask("import", modules=["decimal", "fractions"])["event"] == "imported"
    assert host.ask("prepare")["event"] == "prepared"
    host.start(restored=True)
    assert host.value("parameters") == [3, "none"]


def test_a_module_that_is_not_there_fails_the_import(apps: Apps) -> None:
    host = apps.host(APP)
    failed = host.ask("import", modules=["there_is_none"])
    assert (failed["event"], failed["stage"], failed["type"]) == ("failed", "import", "ModuleNotFoundError")
    assert host.rest() == ([], 1)


def test_what_the_code_prints_goes_to_the_log_and_its_input_is_empty(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    assert host.value("shout") == ""
    assert host.value("child") == ""
    assert host.value("parameters") == [3, "none"]
    assert host.end() == ([{"event": "stopped"}], 0)
    assert "to the log" in host.log() and "no line" in host.log()


def test_calls_run_in_the_main_thread_and_no_other_is_there(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    assert host.value("thread") is True
    assert host.value("threads") == 1


def test_a_function_is_an_object_with_one_method(apps: Apps) -> None:
    host = apps.host(APP)
    host.start("double")
    assert host.value("double", 4) == 8
    assert host.call("triple", 4)["kind"] == "method"


def test_arguments_come_by_position_and_by_name(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    assert host.value("echo", 1, [2], a={"b": None}) == [[1, [2]], {"a": {"b": None}}]
    assert host.value("two", 2, second="ä☃") == "ä☃ä☃"
    assert host.ask("call", id=7, method="parameters") == {"event": "result", "id": 7, "value": [3, "none"], "seconds": pytest.approx(0, abs=60)}


@pytest.mark.parametrize(
    "args, kwargs, message",
    [
        ([], {}, "two(first: int, second: str = 'x') -> str: missing a required argument: 'first'"),
        ([1, "a", 2], {}, "too many positional arguments"),
        ([1], {"third": 1}, "got an unexpected keyword argument 'third'"),
        ([1], {"first": 1}, "multiple values for argument 'first'"),
    ],
)
def test_arguments_that_do_not_fit_the_signature_are_not_called(args: list[object], kwargs: dict[str, object], message: str, apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    answer = host.call("two", *args, **kwargs)
    assert answer["kind"] == "argument" and message in answer["message"] and answer["traceback"] == ""


@pytest.mark.parametrize(
    "method, message",
    [
        ("nothing", "Thing has no method to call nothing: it has parameters, echo"),
        ("helper", "helper is there, and has no @thaw.method()"),
        ("hook", "hook is a web endpoint: send it an HTTP request"),
        ("__init__", "no method to call"),
    ],
)
def test_a_method_that_is_none_is_named(method: str, message: str, apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    answer = host.call(method)
    assert answer["event"] == "error" and answer["kind"] == "method" and message in answer["message"]


def test_exit_of_a_call_is_its_error_and_not_the_instances_end(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    assert host.call("quit")["type"] == "SystemExit"
    assert host.value("thread") is True


def test_a_large_argument_comes_in_many_reads(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    assert host.value("big", "x" * 3_000_000) == 3_000_000


def test_several_commands_in_one_write_are_answered_in_turn(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    host.send("".join(json.dumps({"op": "call", "id": i, "method": "echo", "args": [i]}) + "\n\n" for i in range(20)))
    assert [host.event()["id"] for _ in range(20)] == list(range(20))


def test_http_to_a_method(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    request = {
        "method": "POST",
        "path": "/x",
        "query": "a=1&a=2&b=",
        "headers": [["content-type", "text/plain"]],
        "body": base64.b64encode("hällo".encode()).decode(),
    }
    response = host.ask("http", id=3, method="hook", request=request)
    assert (response["event"], response["id"], response["status"]) == ("response", 3, 200)
    assert response["headers"] == [["content-type", "application/json"]]
    assert json.loads(base64.b64decode(response["body"])) == {
        "method": "POST",
        "path": "/x",
        "q": {"a": ["1", "2"], "b": [""]},
        "body": "hällo",
        "type": "text/plain",
    }
    assert host.ask("http", id=4, method="parameters", request=request)["kind"] == "method"
    assert host.ask("http", id=5, method="hook", request={"body": "%"})["kind"] == "argument"
    assert host.ask("http", id=6, method="hook", request=None)["kind"] == "argument"


def test_http_to_an_async_function(apps: Apps) -> None:
    host = apps.host(APP)
    host.start("page")
    response = host.ask("http", id=3, method="page", request={"method": "GET"})
    assert response["status"] == 201
    assert response["headers"] == [["content-type", "text/plain; charset=utf-8"], ["x-a", "b"]]
    assert base64.b64decode(response["body"]) == b"made"


BEFORE = [
    [],
    [{"op": "import", "modules": ["decimal"]}],
    [{"op": "load"}],
    [{"op": "load"}, {"op": "prepare"}],
    [{"op": "load"}, {"op": "prepare"}, {"op": "boot", "restored": True}],
    [{"op": "load"}, {"op": "boot", "restored": False}],
]


@pytest.mark.parametrize("end", ["end of input", "half a line", "stop"])
@pytest.mark.parametrize("commands", BEFORE, ids=lambda c: "-".join(x["op"] for x in c) or "nothing")
def test_the_conversation_may_end_at_any_point(commands: list[dict[str, object]], end: str, apps: Apps) -> None:
    host = apps.host(APP)
    for command in commands:
        more = {"file": str(host.app), "object": "Thing"} if command["op"] == "load" else {}
        assert host.ask(**{**command, **more})["event"] != "failed"
    if end == "half a line":
        host.send('{"op": "ca')
    if end == "stop":
        host.say("stop")
    assert host.end() == ([{"event": "stopped"}], 0)
    # Only an instance that has started has something to end.
    assert host.lines() == (["bye"] if commands and commands[-1]["op"] == "boot" else [])


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("name", ["Thing", "page"])
@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "a command is not JSON"),
        ("\x00\xff", "a command is not JSON"),
        ("[" * 100_000, "a command is not JSON"),
        ("[]", "no object with an op"),
        ('{"op": 1}', "no object with an op"),
        ('{"op": "dance"}', "dance"),
        ('{"op": "_fail"}', "_fail"),
        ('{"op": "load", "file": 1}', "load"),
        ('{"op": "import", "modules": 3}', "import"),
        ('{"op": "boot", "env": []}', "boot"),
        ('{"op": "call", "method": "thread"}', "call"),
        ('{"op": "call", "id": "1", "method": "thread"}', "call"),
        ('{"op": "call", "id": 1}', "call"),
        ('{"op": "call", "id": 1, "method": "thread", "args": {"a": 1}}', "call"),
    ],
)
def test_what_is_no_command_ends_the_conversation(line: str, message: str, name: str, started: bool, apps: Apps) -> None:
    host = apps.host(APP)
    if started:
        host.start(name)
    host.send(line + "\n")
    events, code = host.rest()
    assert [(e["event"], e["stage"], e["type"]) for e in events] == [("failed", "protocol", "ProtocolError")]
    assert message in events[0]["message"]
    assert code == 1
    assert host.lines() == (["bye"] if started and name == "Thing" else [])


def test_a_host_that_is_gone_ends_the_instance(apps: Apps) -> None:
    host = apps.host(APP)
    host.start()
    host.stdout.close()
    host.say("call", id=1, method="thread")
    host.stdin.close()
    assert host.process.wait(60) == 0
    assert host.lines() == ["bye"]


def test_commands_may_come_from_a_file(apps: Apps) -> None:
    app = apps.write(APP)
    commands = [
        {"op": "load", "file": str(app), "object": "page"},
        {"op": "boot"},
        {"op": "http", "id": 1, "method": "page", "request": {}},
    ]
    file = apps.write("".join(json.dumps(c) + "\n" for c in commands), "commands")
    with open(file) as stdin:
        done = subprocess.run([sys.executable, "-m", "thaw.runner"], stdin=stdin, capture_output=True, text=True, env=environment(), timeout=60)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["loaded", "ready", "response", "stopped"]


@pytest.mark.parametrize(
    "fields, stage, message",
    [
        ({"object": "None"}, "import", "the app runner has no object None: it has Thing, double, page"),
        ({"file": "/none.py"}, "import", "there is no file /none.py"),
        ({"parameters": {"colour": 1}}, "construct", "Thing has no parameter colour: its parameters are size, name"),
        ({"parameters": {"size": "3"}}, "construct", "the parameter size of Thing is '3', which is no int"),
        ({"parameters": {"size": True}}, "construct", "the parameter size of Thing is True, which is no int"),
        ({"object": "double", "parameters": {"a": 1}}, "construct", "double is a function, and has no parameters"),
    ],
)
def test_what_cannot_be_loaded_is_named(fields: dict[str, object], stage: str, message: str, apps: Apps) -> None:
    host = apps.host(APP)
    failed = host.ask("load", **{"file": str(host.app), "object": "Thing", **fields})
    assert (failed["event"], failed["stage"], failed["message"]) == ("failed", stage, message)
    assert host.rest() == ([], 1)


def test_while_it_waits_to_be_frozen_there_is_one_thread_in_a_read(apps: Apps) -> None:
    host = apps.host(APP)
    host.load()
    assert host.ask("prepare")["event"] == "prepared"
    # The last event is sent before the read begins: look until it has.
    process = f"/proc/{host.process.pid}"
    read = ""
    while not read.startswith("0 "):
        read = open(f"{process}/syscall").read()
    assert os.listdir(f"{process}/task") == [str(host.process.pid)]
    descriptor = int(read.split()[1], 16)
    assert os.readlink(f"{process}/fd/{descriptor}").startswith("pipe:")
