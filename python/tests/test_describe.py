"""What a file declares, as deployment reads it."""

from __future__ import annotations

import json
import platform

from conftest import Apps

APP = """
from __future__ import annotations
import json
import os
import helpers
import thaw
from lib import inner

print("this is no part of the document")

app = thaw.App("shop", template=thaw.Template(["decimal"]), dependencies="requirements.lock", data=["models/*.bin"],
               include=["templates/**"], env={"A": "1", "B": "2"}, secrets=["TOKEN"])

@app.cls(enable_memory_snapshot=True, warmup=lambda thing: thing.embed([]), concurrency=4, env={"B": "3"}, secrets=["KEY", "TOKEN"],
         cpu=1.5, memory="512MiB", gpu="any", min_instances=1, idle_timeout=30, template=thaw.Template(["json"]))
class Thing:
    size: int = thaw.parameter(default=3)
    name: str = thaw.parameter()
    any = thaw.parameter(default=None)

    @thaw.enter(snap=True)
    def load(self): pass
    @thaw.method()
    def embed(self, sentences: list[str], *, deep: bool = False) -> list[list[float]]: pass
    @thaw.method
    async def later(self): pass
    @staticmethod
    @thaw.method
    def alone(x: Unknown): pass
    @thaw.web_endpoint()
    def page(self, request: thaw.Request) -> thaw.Response: pass

@app.function
def double(x: int) -> int: return 2 * x

@app.function(memory=1000)
@thaw.web_endpoint
async def site(request): return ""
"""


def test_a_whole_document(apps: Apps) -> None:
    apps.write(APP)
    apps.write("x = 1\n", "helpers.py")
    apps.write("x = 1\n", "unused.py")
    (apps.folder / "lib").mkdir()
    apps.write("", "lib/__init__.py")
    apps.write("x = 1\n", "lib/inner.py")
    done = apps.python("-m", "thaw.describe", str(apps.folder / "app.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and "no part" in done.stderr
    plain = {
        "snapshot": False,
        "parameters": [],
        "concurrency": 1,
        "env": {"A": "1", "B": "2"},
        "secrets": ["TOKEN"],
        "cpu": None,
        "memory": None,
        "gpu": None,
        "min_instances": 0,
        "idle_timeout": None,
        "warmup": False,
        "template": {"modules": ["decimal"]},
    }
    assert json.loads(done.stdout) == {
        "sdk": "0.1.0",
        "python": platform.python_version(),
        "app": "shop",
        "sources": ["app.py", "helpers.py", "lib/__init__.py", "lib/inner.py"],
        "include": ["templates/**"],
        "dependencies": "requirements.lock",
        "data": ["models/*.bin"],
        "template": {"modules": ["decimal"]},
        "objects": [
            {
                "name": "Thing",
                "kind": "class",
                "snapshot": True,
                "methods": [
                    {
                        "name": "embed",
                        "kind": "method",
                        "async": False,
                        "signature": "(sentences: list[str], *, deep: bool = False) -> list[list[float]]",
                    },
                    {"name": "later", "kind": "method", "async": True, "signature": "()"},
                    {"name": "alone", "kind": "method", "async": False, "signature": "(x: Unknown)"},
                    {"name": "page", "kind": "web", "async": False, "signature": "(request: thaw.Request) -> thaw.Response"},
                ],
                "parameters": [
                    {"name": "size", "type": "int", "required": False, "default": 3},
                    {"name": "name", "type": "str", "required": True, "default": None},
                    {"name": "any", "type": "Any", "required": False, "default": None},
                ],
                "concurrency": 4,
                "env": {"A": "1", "B": "3"},
                "secrets": ["TOKEN", "KEY"],
                "cpu": 1.5,
                "memory": 512 << 20,
                "gpu": "any",
                "min_instances": 1,
                "idle_timeout": 30,
                "warmup": True,
                "template": {"modules": ["json"]},
            },
            {
                **plain,
                "name": "double",
                "kind": "function",
                "methods": [{"name": "double", "kind": "method", "async": False, "signature": "(x: int) -> int"}],
            },
            {
                **plain,
                "name": "site",
                "kind": "function",
                "memory": 1000,
                "methods": [{"name": "site", "kind": "web", "async": True, "signature": "(request)"}],
            },
        ],
    }


def test_an_import_that_fails_is_the_document(apps: Apps) -> None:
    apps.write("import thaw\nraise ValueError('no')\n")
    done = apps.python("-m", "thaw.describe", "app.py")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no")
    assert 'app.py", line 2' in error["traceback"]


def test_a_file_that_exits_is_no_success(apps: Apps) -> None:
    apps.write("import sys\nsys.exit(0)\n")
    done = apps.python("-m", "thaw.describe", "app.py")
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["type"] == "SystemExit"


def test_without_a_file_it_says_how(apps: Apps) -> None:
    assert apps.python("-m", "thaw.describe").returncode == 2
