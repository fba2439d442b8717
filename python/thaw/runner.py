"""`python3 -m thaw.runner`: one instance of a function, driven by the host over standard input and output.

The protocol is docs/protocol/runner.md. States, and the commands that lead on:

    new --import--> new --load--> loaded --prepare--> prepared --boot--> ready --call, http--> ready --stop--> the end
                                  loaded ----------------------boot--> ready

prepare is possible without load, for a template. While the process waits to be frozen, the main thread is in one read and there is no other thread
of ours: a restore is that read's return.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from . import fresh, gpu, heap, network, tracebacks
from .boot import Boot
from .conversation import Conversation
from .errors import ProtocolError
from .life import Life, StageError
from .serve import Server

# What the host starts again without a snapshot.
EXIT_COLD = 222
EXIT_FAILED = 1

# Stages that a restored process fails in for reasons that a cold one may not have.
_AFTER_RESTORE = ("refresh", "after_restore", "enter")


class Runner:
    """One conversation, from its first command to its end."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._life = Life()
        self._state = "new"
        self._restored = False

    def run(self) -> None:
        """Returns when all has ended as it should; otherwise the process ends here, with what went wrong as its last event."""
        network.block()
        gpu.hide()
        try:
            try:
                self._follow()
            except KeyboardInterrupt:
                # While it waited for a command: as good as an end of input.
                pass
            # From here on nothing is to keep the exit methods from their work.
            for number in (signal.SIGINT, signal.SIGUSR1):
                signal.signal(number, signal.SIG_IGN)
            self._life.exit()
        except StageError as err:
            self._fail(err.stage, err.error)
        except ProtocolError as err:
            self._give_up(err)
        self._conversation.say("stopped")

    def _follow(self) -> None:
        """Does what the host says until the instance has started, then answers calls until the host says stop."""
        while self._state != "ready":
            command = self._conversation.read()
            if command is None or command["op"] == "stop":
                return
            step = getattr(self, "_on_" + command["op"], None)
            if step is None:
                raise ProtocolError(f"there is no command {command['op']}, or not before the start")
            step(command)
        Server(self._life, self._conversation).run()

    def _on_import(self, command: dict[str, Any]) -> None:
        self._must_be("new", command)
        modules = _field(command, "modules", list)
        self._conversation.say("imported", seconds=self._life.import_modules(modules))

    def _on_load(self, command: dict[str, Any]) -> None:
        # A template that came back from its freeze loads a function, too.
        self._must_be("new", command)
        if command.get("network"):
            network.allow()
        env = _environment(command)
        if command.get("gpu"):
            gpu.reveal()
        else:
            env = gpu.later(env)
        # The process may come from a template's snapshot, with the template's environment.
        fresh.overlay(env)
        file = _field(command, "file", str)
        # Not before: a template is in no author's folder when it is frozen, and every author's is another one.
        if os.path.isdir(os.path.dirname(file)):
            os.chdir(os.path.dirname(file))
        heap.place_apart()
        seconds = self._life.load(
            file, _field(command, "object", str), _field(command, "parameters", dict, optional=True)
        )
        self._state = "loaded"
        self._conversation.say("loaded", seconds=seconds)

    def _on_prepare(self, command: dict[str, Any]) -> None:
        self._must_be("new", command) if self._life.definition is None else self._must_be("loaded", command)
        self._conversation.say("prepared", **self._life.prepare())

    def _on_boot(self, command: dict[str, Any]) -> None:
        self._must_be("loaded", command)
        self._restored = bool(command.get("restored"))
        start = Boot(
            restored=self._restored,
            generation=_field(command, "generation", str, optional=True) or os.urandom(16).hex(),
            frozen_at=_field(command, "frozen_at", (int, float), optional=True),
            env=_environment(command),
        )
        heap.place_together()
        seconds = self._life.boot(
            start,
            hostname=_field(command, "hostname", str, optional=True),
            cpus=_field(command, "cpus", list, optional=True),
            reseed=command.get("reseed", True) is not False,
        )
        self._state = "ready"
        self._conversation.say("ready", seconds=seconds)

    def _must_be(self, state: str, command: dict[str, Any]) -> None:
        if self._state != state:
            raise ProtocolError(f"{command['op']} is no command for an instance that is {self._state}")

    def _fail(self, stage: str, error: BaseException) -> NoReturn:
        fields = tracebacks.describe(error)
        sys.stderr.write(fields["traceback"])
        self._conversation.say("failed", stage=stage, **fields)
        _end(EXIT_COLD if self._restored and stage in _AFTER_RESTORE else EXIT_FAILED)

    def _give_up(self, error: ProtocolError) -> NoReturn:
        """The host cannot be understood. Calls have ended; the object's exit methods run, as they would at any other end."""
        try:
            self._life.exit()
        except StageError as err:
            sys.stderr.write(tracebacks.text(err.error))
        self._fail("protocol", error)


def _environment(command: dict[str, Any]) -> dict[str, Any]:
    env: dict[str, Any] = _field(command, "env", dict, optional=True) or {}
    if not all(value is None or isinstance(value, str) for value in env.values()):
        raise ProtocolError(f"{command['op']} has an environment in which a value is no text")
    return env


def _field(command: dict[str, Any], name: str, kind: type | tuple[type, ...], optional: bool = False) -> Any:
    value = command.get(name)
    if value is None and optional or isinstance(value, kind):
        return value
    raise ProtocolError(f"{command['op']} has no {name}, or one of another type: {str(command)[:80]}")


def _end(code: int) -> NoReturn:
    """Ends the process without waiting for the author's threads: an instance that failed has promised nothing to anybody."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def main() -> None:
    """The program."""
    Runner(Conversation.over_standard_streams()).run()


if __name__ == "__main__":
    main()
