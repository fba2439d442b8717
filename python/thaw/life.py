"""The life of one object, stage by stage, in the order that holds with a snapshot, without one, and without any server.

    import -> construct -> enter(snap=True) -> [warm-up -> before_snapshot -> freeze, restore -> refresh -> after_restore]
           -> enter(snap=False) -> calls -> exit

exit runs only if every enter has succeeded.
"""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Iterator

from . import boot, fresh, heap, network, parameters, prepare, registry
from .definition import Definition
from .errors import ArgumentError, MethodError
from .hooks import mark_of
from .loader import find_app, find_object, import_file

if TYPE_CHECKING:
    import asyncio


class StageError(Exception):
    """A stage failed: which one, and the author's error as __cause__."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error


class Life:
    """One object of an app, from the import of its file to its end."""

    def __init__(self) -> None:
        self.definition: Definition | None = None
        # The object that methods are called on: an instance of the class, or None for a function.
        self.instance: Any = None
        # The one event loop of the process, made when the first coroutine comes; it runs only while something of ours waits for it.
        self.loop: asyncio.AbstractEventLoop | None = None
        self.prepared = False
        self._entered = False
        self._signatures: dict[str, inspect.Signature] = {}

    # Before the freeze.

    def import_modules(self, modules: list[str]) -> float:
        """Imports modules by name, for a template. Returns the seconds it took."""
        with self._stage("import"), _timed() as seconds:
            for name in modules:
                __import__(name)
        return seconds()

    def load(self, file: str, name: str, values: dict[str, Any] | None) -> dict[str, float]:
        """Imports the file, makes the object and runs its enter(snap=True) methods. Returns the seconds of each step."""
        with self._stage("import"), _timed() as importing:
            self.definition = find_object(find_app(import_file(file)), name)
        with self._stage("construct"), _timed() as constructing:
            self._construct(self.definition, values or {})
            self._learn_signatures(self.definition)
        with self._stage("enter_snap"), _timed() as entering:
            self._run_hooks(self.definition.hooks_of("enter", snap=True))
        return {"import": importing(), "construct": constructing(), "enter_snap": entering()}

    def construct(self, definition: Definition, values: dict[str, Any]) -> None:
        """What load does, for an object whose file is imported already."""
        self.definition = definition
        with self._stage("construct"):
            self._construct(definition, values)
            self._learn_signatures(definition)
        with self._stage("enter_snap"):
            self._run_hooks(definition.hooks_of("enter", snap=True))

    def prepare(self) -> dict[str, Any]:
        """Makes the process ready to be frozen. Returns the fields of the event prepared."""
        with self._stage("warmup"), _timed() as warming:
            self._warm_up()
        with self._stage("before_snapshot"), _timed() as hooks:
            for function in registry.before_snapshot_functions():
                self.drive(function())
        with _timed() as settling:
            name = self.definition.name if self.definition else ""
            fields = prepare.report(self.instance, name)
        self.prepared = True
        return {**fields, "seconds": {"warmup": warming(), "before_snapshot": hooks(), "settle": settling()}}

    # After it.

    def boot(
        self,
        start: boot.Boot,
        hostname: str | None = None,
        cpus: list[int] | None = None,
        reseed: bool = True,
    ) -> dict[str, float]:
        """Renews what a restore made stale, and runs the hooks of the start. Returns the seconds of each step."""
        with self._stage("refresh"), _timed() as refreshing:
            network.allow()
            boot.set_boot(start)
            # A process that has been prepared may have been frozen, and what comes out of the snapshot of a template is booted as any other.
            if start.restored or self.prepared:
                fresh.refresh(start.generation, start.env, hostname, cpus, reseed)
            else:
                fresh.set_environment(start.env)
        with self._stage("after_restore"), _timed() as after:
            # Also when the frozen process itself goes on: what before_snapshot closed has to be opened again.
            for function in registry.after_restore_functions() if start.restored or self.prepared else []:
                self.drive(function())
        with self._stage("enter"), _timed() as entering:
            if self.definition is not None:
                self._run_hooks(self.definition.hooks_of("enter", snap=False))
        self._entered = True
        return {"refresh": refreshing(), "after_restore": after(), "enter": entering()}

    def bind(self, name: str, kind: str, args: list[Any], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """A call with its arguments checked. What it returns may be a coroutine. Raises MethodError or ArgumentError."""
        assert self.definition is not None
        method = self.definition.methods.get(name)
        if method is None or method.kind != kind:
            raise MethodError(self._no_such_method(name, kind))
        function = self._function(self.definition, name)
        try:
            self._signatures[name].bind(*args, **kwargs)
        except TypeError as err:
            raise ArgumentError(f"{name}{method.signature}: {err}") from None
        return lambda: function(*args, **kwargs)

    def is_async(self, name: str) -> bool:
        """Whether a call of a method that exists belongs on the loop."""
        return self.definition is not None and self.definition.methods[name].is_async

    def exit(self) -> None:
        """Runs the exit methods, all of them, if the object was entered. Raises StageError for the first that failed."""
        first: StageError | None = None
        if self._entered and self.definition is not None:
            self._entered = False
            for name in self.definition.hooks_of("exit"):
                try:
                    with self._stage("exit"):
                        self._run_hooks([name])
                except StageError as err:
                    first = first or err
        self._close_loop()
        heap.flush()
        if first is not None:
            raise first

    def drive(self, result: Any) -> Any:
        """What a hook or call returned; if that is a coroutine, what it comes to on the loop."""
        if not inspect.isawaitable(result):
            return result
        return self.event_loop().run_until_complete(_await(result))

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the process. It is the same before the freeze and after it, and does not run at the freeze."""
        if self.loop is None:
            import asyncio

            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        return self.loop

    def _construct(self, definition: Definition, values: dict[str, Any]) -> None:
        if definition.uses_loop():
            self.event_loop()
        if definition.kind == "function":
            if values:
                raise ArgumentError(f"{definition.name} is a function, and has no parameters")
            return
        cls = definition.target
        instance = cls.__new__(cls)
        parameters.assign(instance, values)
        instance.__init__()
        self.instance = instance

    def _learn_signatures(self, definition: Definition) -> None:
        """Before the freeze, so that no restored process has to."""
        for name in definition.methods:
            self._signatures[name] = inspect.signature(self._function(definition, name))

    def _function(self, definition: Definition, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = definition.target if definition.kind == "function" else getattr(self.instance, name)
        return function

    def _run_hooks(self, names: list[str]) -> None:
        for name in names:
            self.drive(getattr(self.instance, name)())

    def _warm_up(self) -> None:
        definition = self.definition
        warmup = definition.settings.warmup if definition else None
        if definition is None or warmup is None:
            return
        if isinstance(warmup, str):
            self.drive(getattr(self.instance, warmup)())
        else:
            self.drive(warmup(definition.target if definition.kind == "function" else self.instance))

    def _no_such_method(self, name: str, kind: str) -> str:
        assert self.definition is not None
        method = self.definition.methods.get(name)
        if method is not None:
            return f"{name} is {'a web endpoint: send it an HTTP request' if kind == 'method' else 'no web endpoint, but a method: call it'}"
        has = [m.name for m in self.definition.methods.values() if m.kind == kind]
        hint = f"it has {', '.join(has)}" if has else "it has none"
        what = "method to call" if kind == "method" else "web endpoint"
        unmarked = getattr(self.instance, name, None)
        if callable(unmarked) and mark_of(unmarked) is None and not name.startswith("_"):
            hint += f"; {name} is there, and has no @thaw.method()"
        return f"{self.definition.name} has no {what} {name}: {hint}"

    def _close_loop(self) -> None:
        loop, self.loop = self.loop, None
        if loop is None or loop.is_closed():
            return
        import asyncio

        async def end_tasks() -> None:
            tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        try:
            loop.run_until_complete(end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        try:
            yield
        except StageError:
            raise
        except BaseException as err:
            # sys.exit() in an author's code, too: it ends the stage and not the conversation.
            raise StageError(stage, err) from err


async def _await(awaitable: Any) -> Any:
    return await awaitable


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    """Gives a function that says, after the block, how many seconds it took."""
    start = time.perf_counter()
    end: list[float] = []
    try:
        yield lambda: round(end[0] - start, 6)
    finally:
        end.append(time.perf_counter())
