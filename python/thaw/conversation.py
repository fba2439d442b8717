"""The two ends of the conversation with the host: commands in, events out, one JSON object on each line.

Both use descriptors of their own, so that an author's code has the standard streams for itself: print goes to the log, and a child process
that reads its standard input does not eat commands.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from .errors import ProtocolError

# Bytes of a line at most, with its end. The host ends a conversation with a longer one, and all calls with it.
LONGEST_LINE = 64 << 20


class Conversation:
    """One host. Events may be sent from any thread; commands are read by one thread at a time."""

    def __init__(self, commands: int, events: int) -> None:
        """Takes the descriptors that commands come from and that events go to, and owns them."""
        self.commands = commands
        self._events = events
        self._lock = threading.Lock()
        # Bytes that have been read and not returned: whole lines, then the beginning of one.
        self._buffer = bytearray()
        # How much of it has been searched for the end of a line: a request with a large body comes in many reads.
        self._searched = 0
        self._ended = False

    @classmethod
    def over_standard_streams(cls) -> Conversation:
        """Takes standard input and output for the conversation, and puts /dev/null and standard error in their places."""
        commands, events = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        # The log shows a line when it is printed, not when a buffer is full: a buffer would be frozen, too, and come out of each restore.
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(line_buffering=True, errors="backslashreplace")
        return cls(commands, events)

    def read(self) -> dict[str, Any] | None:
        """The next command; None at the end of input. Waits in one plain read. Raises ProtocolError for a line that is none."""
        while True:
            command = self.buffered()
            if command is not None or not self.fill():
                return command

    def fill(self) -> bool:
        """Reads once from the descriptor, and waits if there is nothing. False at the end of input."""
        if not self._ended:
            data = os.read(self.commands, 1 << 16)
            # A line that was not finished is of a host that is gone: nobody waits for what it asked.
            self._ended = not data
            self._buffer += data
        return not self._ended

    def buffered(self) -> dict[str, Any] | None:
        """The next command that has been read already, without waiting; None if there is none."""
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if line.strip():
                return _parse(line)
        self._searched = len(self._buffer)
        return None

    def say(self, event: str, **fields: Any) -> None:
        """Sends an event. A host that is gone is no error: the end of input says so."""
        self.say_text(json.dumps({"event": event, **fields}, separators=(",", ":")))

    def say_text(self, line: str) -> None:
        """Sends an event that is JSON already, on one line."""
        data = memoryview(line.encode() + b"\n")
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._events, data) :]
            except BrokenPipeError:
                pass


def _parse(line: bytes) -> dict[str, Any]:
    try:
        command = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"a command is not JSON: {err}: {line[:80]!r}") from None
    if not isinstance(command, dict) or not isinstance(command.get("op"), str):
        raise ProtocolError(f"a command is no object with an op: {line[:80]!r}")
    return command
