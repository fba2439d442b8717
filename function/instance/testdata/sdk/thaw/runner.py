"""The smallest runner that keeps to the conversation: a stand-in for tests of the host's side. It knows no hooks and no HTTP but an echo."""

import base64
import importlib.util
import json
import os
import random
import sys
import time
import traceback

out = os.fdopen(os.dup(1), "wb", buffering=0)
os.dup2(2, 1)


def say(**event):
    out.write(json.dumps(event).encode() + b"\n")


def commands():
    pending = b""
    while True:
        data = os.read(0, 1 << 16)
        if not data:
            return
        pending += data
        *lines, pending = pending.split(b"\n")
        for line in lines:
            yield json.loads(line)


def load(command):
    spec = importlib.util.spec_from_file_location("app", command["file"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, command["object"])(**(command["parameters"] or {}))


def boot(command):
    for key, value in command["env"].items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    if command["restored"] and command["reseed"]:
        random.seed()


def call(target, command):
    start = time.perf_counter()
    try:
        value = getattr(target, command["method"])(*command["args"], **command["kwargs"])
        say(event="result", id=command["id"], value=value, seconds=time.perf_counter() - start)
    except Exception as e:
        say(event="error", id=command["id"], kind="exception", type=type(e).__name__, message=str(e), traceback=traceback.format_exc())


def main():
    target = None
    for command in commands():
        op = command["op"]
        stage = op
        try:
            if op == "import":
                for name in command["modules"]:
                    __import__(name)
                say(event="imported", seconds=0.0)
            elif op == "load":
                target = load(command)
                say(event="loaded", seconds={"import": 0.0, "construct": 0.0, "enter_snap": 0.0})
            elif op == "prepare":
                stage = "before_snapshot"
                say(event="prepared", problems=[], generators=[], seconds={})
            elif op == "boot":
                stage = "refresh"
                boot(command)
                say(event="ready", seconds={"refresh": 0.0, "after_restore": 0.0, "enter": 0.0})
            elif op == "call":
                call(target, command)
            elif op == "http":
                body = base64.b64decode(command["request"]["body"])
                say(event="response", id=command["id"], status=200, headers=[["x-method", command["method"]]],
                    body=base64.b64encode(body[::-1]).decode())
            elif op == "stop":
                break
        except Exception as e:
            say(event="failed", stage=stage, type=type(e).__name__, message=str(e), traceback=traceback.format_exc())
            sys.exit(1)
    say(event="stopped")


main()
