"""Answering calls, from the start of an instance to its stop.

Where a call runs:

    one call at a time, methods not async     in the main thread, which reads the next command after it
    several at a time, methods not async      in threads; the main thread reads
    something is async                        on the one loop, in the main thread, which watches for commands; methods that are not async run in
                                              threads if several calls may run at a time, and else in the main thread while the loop rests

The main thread is where signal handlers run, and what some libraries expect to be called from.
"""

from __future__ import annotations

import inspect
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable

from . import tracebacks
from .conversation import LONGEST_LINE, Conversation
from .errors import CallError, ProtocolError, ResultError
from .life import Life
from .values import to_json
from .web import request_from, response_fields

if TYPE_CHECKING:
    import asyncio


class Call:
    """One call of the host's: what to run, and how its end is told."""

    def __init__(self, life: Life, conversation: Conversation, command: dict[str, Any]) -> None:
        """Raises ProtocolError if the command is none. What is wrong with the call itself is answered."""
        self._conversation = conversation
        self._start = time.perf_counter()
        self._web = command["op"] == "http"
        self._id = command.get("id")
        if type(self._id) is not int:
            raise ProtocolError(f"a call without a number: {str(command)[:80]}")
        name, args, kwargs = command.get("method"), command.get("args") or [], command.get("kwargs") or {}
        if not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ProtocolError(f"a call without a method, or whose arguments are no list and object: {str(command)[:80]}")
        self.run: Callable[[], Any] | None = None
        self.is_async = False
        try:
            if self._web:
                self.run = life.bind(name, "web", [request_from(command.get("request"))], {})
            else:
                self.run = life.bind(name, "method", args, kwargs)
            self.is_async = life.is_async(name)
        except CallError as err:
            self.failed(err)

    def here(self) -> None:
        """Runs a call that is not async, to its end."""
        if self.run is None:
            return
        try:
            result = self.run()
            if inspect.isawaitable(result):
                raise ResultError("the method returned something to await, and is not async: write async def")
            self.done(result)
        except BaseException as err:
            self.failed(err)

    async def there(self) -> None:
        """Runs an async call on the loop, to its end."""
        if self.run is None:
            return
        try:
            result = self.run()
            # A decorator can have made an ordinary method of an async one.
            self.done(await result if inspect.isawaitable(result) else result)
        except BaseException as err:
            self.failed(err)

    def done(self, result: Any) -> None:
        """Sends the result, or says why it cannot be sent."""
        if self._web:
            line = json.dumps({"event": "response", "id": self._id, **response_fields(result)}, separators=(",", ":"))
        else:
            value = to_json(result)
            seconds = json.dumps(round(time.perf_counter() - self._start, 6))
            line = f'{{"event":"result","id":{self._id},"value":{value},"seconds":{seconds}}}'
        # It is ASCII, and its end is still to come.
        if len(line) >= LONGEST_LINE:
            raise ResultError(
                f"the result is {len(line) + 1} bytes long as it would be sent (JSON, with the body of a response in base64), and the limit is "
                f"{LONGEST_LINE} bytes: return less, or where to find it, in a file or an object store"
            )
        self._conversation.say_text(line)

    def failed(self, error: BaseException) -> None:
        """Sends what the author's code raised, or why it was not called."""
        self.run = None
        fields = tracebacks.describe(error)
        kind = "exception"
        if isinstance(error, CallError):
            # Ours: there is no frame of the author's to show.
            kind, fields["traceback"] = error.kind, ""
        self._conversation.say("error", id=self._id, kind=kind, **fields)


class Server:
    """Reads calls and answers them until the host says stop, or its end of the conversation is closed."""

    def __init__(self, life: Life, conversation: Conversation) -> None:
        self._life = life
        self._conversation = conversation
        definition = life.definition
        self._concurrency = definition.settings.concurrency if definition else 1
        methods = definition.methods.values() if definition else ()
        # A loop that is there already may have tasks of the author's, which go on between calls.
        self._async = life.loop is not None or any(method.is_async for method in methods)
        self._pool: ThreadPoolExecutor | None = None
        if self._concurrency > 1 and not all(method.is_async for method in methods):
            self._pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="thaw-call")

    def run(self) -> None:
        """Returns after the last running call has ended. Raises ProtocolError, then too, for what is no call."""
        try:
            if self._async:
                _OnLoop(self._life, self._conversation, self._pool).run()
            else:
                self._in_threads_or_here()
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=True)

    def _in_threads_or_here(self) -> None:
        while (command := self._conversation.read()) is not None and not _is_stop(command):
            call = Call(self._life, self._conversation, command)
            if self._pool is None:
                call.here()
            else:
                self._pool.submit(call.here)


class _OnLoop:
    """The conversation as one of the things that the loop watches.

    All fields belong to the main thread, which is the loop's.
    """

    def __init__(self, life: Life, conversation: Conversation, pool: ThreadPoolExecutor | None) -> None:
        self._life = life
        self._conversation = conversation
        self._pool = pool
        self._loop = life.event_loop()
        self._running: set[asyncio.Future[None]] = set()
        # Calls for the main thread, while the loop rests.
        self._here: list[Call] = []
        self._ended = False
        self._error: ProtocolError | None = None

    def run(self) -> None:
        # What came together with the command before is there already. On the loop, not here: stopping a loop that does not run would
        # stop it the next time.
        self._loop.call_soon(self._take)
        try:
            self._loop.add_reader(self._conversation.commands, self._readable)
        except PermissionError:
            # A file, when somebody tries the runner by hand: it is always readable, and cannot be watched.
            self._loop.call_soon(self._read_file)
        while not self._ended or self._running or self._here:
            self._loop.run_forever()
            while self._here:
                self._here.pop(0).here()
        if self._error is not None:
            raise self._error

    def _readable(self) -> None:
        alive = self._conversation.fill()
        self._take()
        if not alive:
            self._end()

    def _read_file(self) -> None:
        while not self._ended:
            self._readable()

    def _take(self) -> None:
        try:
            while not self._ended and (command := self._conversation.buffered()) is not None:
                if _is_stop(command):
                    self._end()
                else:
                    self._start(Call(self._life, self._conversation, command))
        except ProtocolError as err:
            self._error = err
            self._end()

    def _start(self, call: Call) -> None:
        if call.is_async:
            self._track(self._loop.create_task(call.there()))
        elif self._pool is not None:
            self._track(self._loop.run_in_executor(self._pool, call.here))
        else:
            self._here.append(call)
            self._loop.stop()

    def _track(self, future: asyncio.Future[None]) -> None:
        self._running.add(future)
        future.add_done_callback(self._finished)

    def _finished(self, future: asyncio.Future[None]) -> None:
        self._running.discard(future)
        if self._ended and not self._running:
            self._loop.stop()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self._conversation.commands)
        if not self._running:
            self._loop.stop()


def _is_stop(command: dict[str, Any]) -> bool:
    """Whether a command ends the conversation. Raises ProtocolError for one that has no place among calls."""
    if command["op"] not in ("call", "http", "stop"):
        raise ProtocolError(f"{command['op']} is no command for an instance that has started: it takes call, http and stop")
    return bool(command["op"] == "stop")
