"""App: the name under which classes and functions are declared and deployed together."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence, TypeVar, overload

from .definition import Definition, Settings, Template, Warmup, define_class, define_function
from .errors import InvalidError
from .hooks import mark_of

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


class App:
    """What one file declares.

    name          what the functions are deployed under
    template      modules to import ahead of all objects that name no template of their own
    dependencies  a lock file, relative to the app's folder, that says which packages the code needs; a change makes a new version
    data          files beside the code that it reads, as paths or patterns relative to the folder; a change makes a new version
    include       patterns of files that belong to the code besides the modules that are imported with it
    env, secrets  for all objects, under their own ones
    """

    def __init__(
        self,
        name: str,
        *,
        template: Template | None = None,
        dependencies: str | None = None,
        data: Sequence[str] = (),
        include: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidError(f'an app has a name: app = thaw.App("my-app"), not {name!r}')
        for what, value in (("data", data), ("include", include), ("secrets", secrets)):
            if isinstance(value, str) or not all(isinstance(v, str) for v in value):
                raise InvalidError(f"{what} of the app {name} is {value!r}: it is a list of texts")
        self.name = name
        self.template = template
        self.dependencies = dependencies
        self.data = tuple(data)
        self.include = tuple(include)
        self.env = dict(env or {})
        self.secrets = tuple(secrets)
        self.objects: dict[str, Definition] = {}

    @overload
    def cls(self, target: C, /) -> C: ...
    @overload
    def cls(
        self,
        target: None = None,
        /,
        *,
        enable_memory_snapshot: bool = ...,
        warmup: Warmup | None = ...,
        concurrency: int = ...,
        env: Mapping[str, str] | None = ...,
        secrets: Sequence[str] = ...,
        cpu: float | None = ...,
        memory: int | str | None = ...,
        gpu: str | bool | None = ...,
        min_instances: int = ...,
        idle_timeout: float | None = ...,
        template: Template | None = ...,
    ) -> Callable[[C], C]: ...
    def cls(
        self,
        target: Any = None,
        /,
        *,
        enable_memory_snapshot: bool = False,
        warmup: Warmup | None = None,
        concurrency: int = 1,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        cpu: float | None = None,
        memory: int | str | None = None,
        gpu: str | bool | None = None,
        min_instances: int = 0,
        idle_timeout: float | None = None,
        template: Template | None = None,
    ) -> Any:
        """Declares a class. The class itself stays what it is.

        enable_memory_snapshot  instances start from a snapshot of the memory, taken after the enter(snap=True) methods
        warmup                  runs before the memory is frozen: the name of a method without arguments, or what to call with the object
        concurrency             how many calls one instance gets at once; above 1, methods that are not async run in threads
        env                     environment variables
        secrets                 names of environment variables whose values the server gives, and that come after the restore only
        cpu, memory             limits of an instance: CPUs; bytes, or a text such as "2GiB"
        gpu                     "any" if an instance needs a GPU; it is there after the restore
        min_instances           how many instances are kept running when there is nothing to do
        idle_timeout            after how many seconds without a call an instance stops
        template                modules that are imported ahead of the class
        """
        settings = self._settings(
            enable_memory_snapshot, warmup, concurrency, env, secrets, cpu, memory, gpu, min_instances, idle_timeout, template
        )

        def declare(cls: C) -> C:
            self._add(define_class(cls, settings))
            return cls

        return declare if target is None else declare(target)

    @overload
    def function(self, target: F, /) -> F: ...
    @overload
    def function(
        self,
        target: None = None,
        /,
        *,
        enable_memory_snapshot: bool = ...,
        warmup: Callable[[Any], Any] | None = ...,
        concurrency: int = ...,
        env: Mapping[str, str] | None = ...,
        secrets: Sequence[str] = ...,
        cpu: float | None = ...,
        memory: int | str | None = ...,
        gpu: str | bool | None = ...,
        min_instances: int = ...,
        idle_timeout: float | None = ...,
        template: Template | None = ...,
    ) -> Callable[[F], F]: ...
    def function(
        self,
        target: Any = None,
        /,
        *,
        enable_memory_snapshot: bool = False,
        warmup: Callable[[Any], Any] | None = None,
        concurrency: int = 1,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        cpu: float | None = None,
        memory: int | str | None = None,
        gpu: str | bool | None = None,
        min_instances: int = 0,
        idle_timeout: float | None = None,
        template: Template | None = None,
    ) -> Any:
        """Declares a function, with the settings of cls. A snapshot has what its module made when it was imported.

        Below it may stand @thaw.web_endpoint(). The function itself stays what it is.
        """
        settings = self._settings(
            enable_memory_snapshot, warmup, concurrency, env, secrets, cpu, memory, gpu, min_instances, idle_timeout, template
        )

        def declare(function: F) -> F:
            self._add(define_function(function, settings, mark_of(function)))
            return function

        return declare if target is None else declare(target)

    def _settings(
        self,
        enable_memory_snapshot: bool,
        warmup: Warmup | None,
        concurrency: int,
        env: Mapping[str, str] | None,
        secrets: Sequence[str],
        cpu: float | None,
        memory: int | str | None,
        gpu: str | bool | None,
        min_instances: int,
        idle_timeout: float | None,
        template: Template | None,
    ) -> Settings:
        if isinstance(secrets, str):
            raise InvalidError(f"secrets is {secrets!r}: it is a list of names")
        return Settings(
            enable_memory_snapshot=enable_memory_snapshot,
            warmup=warmup,
            concurrency=concurrency,
            env={**self.env, **(env or {})},
            secrets=tuple(dict.fromkeys((*self.secrets, *secrets))),
            cpu=cpu,
            memory=memory,
            gpu=gpu,
            min_instances=min_instances,
            idle_timeout=idle_timeout,
            template=template or self.template,
        )

    def _add(self, definition: Definition) -> None:
        before = self.objects.get(definition.name)
        # The same file may be run again by a notebook or an editor: the newer declaration counts. Two in one file are a mistake.
        if before is not None and before.target.__qualname__ != definition.target.__qualname__:
            raise InvalidError(f"the app {self.name} has two objects with the name {definition.name}")
        self.objects[definition.name] = definition
