"""`python3 -m thaw.describe FILE`: what a file declares, as one JSON document, for deployment.

The format is docs/protocol/runner.md, section "Describe".
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, get_args

from . import gpu, network, tracebacks
from .conversation import Conversation
from .definition import Definition, Template, gpu_name, memory_bytes
from .loader import find_app, import_file, sources
from .parameters import parameters, types
from .values import to_json
from .version import VERSION


def document(file: str) -> dict[str, Any]:
    """The document of a file, which is imported for it. Raises what the author's code raises, and InvalidError."""
    app = find_app(import_file(file))
    return {
        "sdk": VERSION,
        "python": platform.python_version(),
        "app": app.name,
        "sources": sources(os.path.dirname(os.path.abspath(file))),
        "include": list(app.include),
        "dependencies": app.dependencies,
        "data": list(app.data),
        "template": _template(app.template),
        "objects": [_object(definition) for definition in app.objects.values()],
    }


def _object(definition: Definition) -> dict[str, Any]:
    settings = definition.settings
    return {
        "name": definition.name,
        "kind": definition.kind,
        "snapshot": settings.enable_memory_snapshot,
        "methods": [
            {"name": m.name, "kind": m.kind, "async": m.is_async, "signature": m.signature} for m in definition.methods.values()
        ],
        "parameters": _parameters(definition),
        "concurrency": settings.concurrency,
        "env": dict(settings.env),
        "secrets": list(settings.secrets),
        "cpu": settings.cpu,
        "memory": memory_bytes(settings.memory),
        "gpu": gpu_name(settings.gpu),
        "min_instances": settings.min_instances,
        "idle_timeout": settings.idle_timeout,
        "warmup": settings.warmup is not None,
        "template": _template(settings.template),
    }


def _parameters(definition: Definition) -> list[dict[str, Any]]:
    if definition.kind == "function":
        return []
    kinds = types(definition.target)
    return [
        {
            "name": name,
            "type": _type(kinds[name]),
            "required": what.required,
            "default": None if what.required else what.default,
        }
        for name, what in parameters(definition.target).items()
    ]


def _type(kind: Any) -> str:
    if kind is Any:
        return "Any"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _template(template: Template | None) -> dict[str, Any] | None:
    return None if template is None else {"modules": list(template.modules)}


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    if len(arguments) != 1:
        print("usage: python3 -m thaw.describe FILE", file=sys.stderr)
        return 2
    # What the file prints when it is imported is no part of the document.
    conversation = Conversation.over_standard_streams()
    network.block()
    gpu.hide()
    try:
        text = to_json(document(arguments[0]))
    except BaseException as err:
        conversation.say_text(to_json({"error": tracebacks.describe(err)}))
        return 1
    conversation.say_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
