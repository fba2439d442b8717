"""Running one call without a server: the hooks in the same order, in this process, with the network and the GPU that are there."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from . import tracebacks
from .boot import Boot
from .conversation import Conversation
from .definition import Definition
from .errors import ArgumentError, CallError, InvalidError
from .life import Life, StageError
from .loader import find_app, find_object, import_file
from .parameters import from_text
from .values import to_json
from .web import Request, response_fields


def parser() -> argparse.ArgumentParser:
    """The command line of `python3 -m thaw`."""
    top = argparse.ArgumentParser(prog="python3 -m thaw", description="Functions that resume from memory: the authors' side.")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="call a method or a function in this process",
        description="Makes the object, runs its hooks and the call, and prints the result as JSON. What the code prints goes to standard error.",
    )
    run.add_argument("what", metavar="FILE::OBJECT[.METHOD]", help="for example app.py::Embedder.embed, or app.py::hello")
    run.add_argument("--json", metavar="JSON", help="the arguments: an object by name, or a list by position; for a web endpoint the body")
    run.add_argument("--param", metavar="NAME=VALUE", action="append", default=[], help="a parameter of the class; may be repeated")
    return top


def run(what: str, arguments: str | None, parameters: list[str]) -> str:
    """The result of one call, as JSON; of a web endpoint, the body. Raises Error for what cannot be called, and what the author's code raises."""
    file, name, method = _target(what)
    life = Life()
    try:
        definition = find_object(find_app(import_file(file)), name)
        method = _method(definition, method)
        web = definition.methods[method].kind == "web"
        given = _arguments(arguments, web)
        life.construct(definition, _parameters(definition, parameters))
        life.boot(Boot(generation=os.urandom(16).hex()))
        call = life.bind(method, "web" if web else "method", *given)
        try:
            result = life.drive(call())
            return _body(result) if web else to_json(result)
        finally:
            life.exit()
    except StageError as err:
        raise err.error from None


def main(argv: list[str]) -> int:
    """The program; returns its exit code."""
    options = parser().parse_args(argv)
    # As in an instance: the result is by itself on standard output.
    output = Conversation.over_standard_streams()
    try:
        output.say_text(run(options.what, options.json, options.param))
    except (CallError, InvalidError) as err:
        print(f"thaw: {err}", file=sys.stderr)
        return 1
    except (Exception, SystemExit) as err:
        sys.stderr.write(tracebacks.text(err))
        return 1
    return 0


def _target(what: str) -> tuple[str, str, str | None]:
    file, separator, path = what.partition("::")
    name, _, method = path.partition(".")
    if not separator or not file or not name:
        raise InvalidError(f"{what} does not say what to call: write FILE::OBJECT.METHOD, as app.py::Embedder.embed")
    return file, name, method or None


def _method(definition: Definition, method: str | None) -> str:
    if method is None and len(definition.methods) > 1:
        raise InvalidError(f"{definition.name} has several methods: say which one, as {definition.name}.{next(iter(definition.methods))}")
    name = method or next(iter(definition.methods))
    if name not in definition.methods:
        raise InvalidError(f"{definition.name} has no method {name}: it has {', '.join(definition.methods)}")
    return name


def _parameters(definition: Definition, pairs: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ArgumentError(f"--param {pair}: write NAME=VALUE")
        values[name] = from_text(definition.target, name, text) if definition.kind == "class" else text
    return values


def _arguments(text: str | None, web: bool) -> tuple[list[Any], dict[str, Any]]:
    if web:
        return [Request("GET") if text is None else Request("POST", body=text.encode())], {}
    if text is None:
        return [], {}
    try:
        value = json.loads(text)
    except ValueError as err:
        raise ArgumentError(f"the arguments are not JSON: {err}") from None
    if isinstance(value, dict):
        return [], value
    if isinstance(value, list):
        return value, {}
    raise ArgumentError(f"the arguments are {text}: write an object of arguments by name, or a list of them")


def _body(result: object) -> str:
    import base64

    return base64.b64decode(response_fields(result)["body"]).decode(errors="replace")


