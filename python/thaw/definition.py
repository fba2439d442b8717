"""What an app declares: objects, classes or functions, with their methods and settings; and what is wrong with a declaration.

Everything that can be known when the file is imported is checked here, so that a mistake is an error at the line of the decorator and not
a failing start later.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Callable, Literal, Mapping, Sequence, Union

from . import parameters
from .errors import InvalidError
from .hooks import Mark, marks

# A warm-up: the name of a method that needs no arguments, or what is called with the object (or with the function).
Warmup = Union[str, Callable[[Any], Any]]

# How units of memory are written; longer names first.
_UNITS = {"GIB": 1 << 30, "MIB": 1 << 20, "KIB": 1 << 10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


@dataclass(frozen=True)
class Template:
    """Modules that several functions import: a snapshot of them alone serves as the base of the functions' snapshots."""

    modules: tuple[str, ...]

    def __init__(self, modules: Sequence[str]) -> None:
        if isinstance(modules, str) or not all(isinstance(m, str) and m for m in modules):
            raise InvalidError(f'Template takes a list of names of modules, as Template(["numpy", "torch"]), not {modules!r}')
        object.__setattr__(self, "modules", tuple(modules))


@dataclass(frozen=True)
class Method:
    """What can be called on an object."""

    name: str
    kind: Literal["method", "web"]
    is_async: bool
    signature: str


@dataclass(frozen=True)
class Settings:
    """The options of @app.cls and @app.function; App.cls says what they mean."""

    enable_memory_snapshot: bool = False
    warmup: Warmup | None = None
    concurrency: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    cpu: float | None = None
    memory: int | str | None = None
    gpu: str | bool | None = None
    min_instances: int = 0
    idle_timeout: float | None = None
    template: Template | None = None


@dataclass(frozen=True)
class Definition:
    """One class or function of an app, checked."""

    name: str
    kind: Literal["class", "function"]
    target: Any
    settings: Settings
    methods: Mapping[str, Method]
    hooks: Mapping[str, Mark]

    def hooks_of(self, kind: Literal["enter", "exit"], snap: bool = False) -> list[str]:
        """The names of the hooks of a kind, in the order in which they run."""
        return [name for name, mark in self.hooks.items() if mark.kind == kind and mark.snap == snap]

    def uses_loop(self) -> bool:
        """Whether any method or hook is async."""
        return any(m.is_async for m in self.methods.values()) or any(is_async(getattr(self.target, name)) for name in self.hooks)


def define_class(cls: type, settings: Settings) -> Definition:
    """Checks a class and its settings. Raises InvalidError."""
    if not isinstance(cls, type):
        raise InvalidError(f"@app.cls belongs above a class; a function gets @app.function() ({cls!r})")
    found = marks(cls)
    _check_settings(cls.__name__, settings)
    for name, mark in found.items():
        if mark.kind in ("enter", "exit"):
            _check_hook(cls, name, mark, settings)
    callable_ones = {name: mark for name, mark in found.items() if mark.kind in ("method", "web")}
    if not callable_ones:
        raise InvalidError(f"{cls.__name__} has nothing to call: mark a method with @thaw.method() or @thaw.web_endpoint()")
    _check_constructor(cls)
    parameters.check(cls)
    if isinstance(settings.warmup, str):
        _check_warmup_method(cls, settings.warmup)
    methods = {name: _method(name, getattr(cls, name), mark, _skips_self(cls, name)) for name, mark in callable_ones.items()}
    return Definition(cls.__name__, "class", cls, settings, methods, found)


def define_function(function: Callable[..., Any], settings: Settings, mark: Mark | None) -> Definition:
    """Checks a function and its settings. Raises InvalidError."""
    if isinstance(function, type) or not callable(function):
        raise InvalidError(f"@app.function belongs above a function; a class gets @app.cls() ({function!r})")
    name = function.__name__
    if mark is not None and mark.kind not in ("method", "web"):
        raise InvalidError(f"{name} is a function and has {mark.decorator()}: a function that must prepare something becomes a class")
    _check_settings(name, settings)
    if isinstance(settings.warmup, str):
        raise InvalidError(f"the warm-up of the function {name} is something to call with it, as warmup=lambda f: f(1)")
    method = _method(name, function, mark or Mark("method"), skip=0)
    return Definition(name, "function", function, settings, {name: method}, {})


def memory_bytes(memory: int | str | None) -> int | None:
    """A size as settings have it, in bytes. Raises InvalidError."""
    if memory is None:
        return None
    number: int | str | float = memory
    unit = 1
    if isinstance(memory, str):
        number = text = memory.strip().upper()
        for suffix, factor in _UNITS.items():
            if text.endswith(suffix):
                number, unit = text[: -len(suffix)].strip(), factor
                break
    try:
        size = int(float(number) * unit)
    except ValueError:
        size = 0
    if size <= 0 or isinstance(memory, bool):
        raise InvalidError(f'memory is {memory!r}: write a number of bytes, or a text such as "512MiB"')
    return size


def gpu_name(gpu: str | bool | None) -> Literal["any"] | None:
    """What settings ask for of a GPU. Raises InvalidError."""
    if gpu in (None, False):
        return None
    if gpu in (True, "any"):
        return "any"
    raise InvalidError(f'gpu is {gpu!r}: it can be "any" or None')


def is_async(function: object) -> bool:
    """Whether a call gives a coroutine: async def, also behind a wrapper or as the __call__ of an object."""
    unwrapped = inspect.unwrap(function) if callable(function) else function
    return inspect.iscoroutinefunction(unwrapped) or inspect.iscoroutinefunction(getattr(function, "__call__", None))


def signature_text(signature: inspect.Signature) -> str:
    """A signature as it was written: annotations that are texts appear without quotes."""

    class Bare:
        def __init__(self, text: str) -> None:
            self.text = text

        def __repr__(self) -> str:
            return self.text

    def bare(annotation: Any) -> Any:
        return Bare(annotation) if isinstance(annotation, str) else annotation

    changed = [p.replace(annotation=bare(p.annotation)) for p in signature.parameters.values()]
    return str(signature.replace(parameters=changed, return_annotation=bare(signature.return_annotation)))


def _method(name: str, function: Callable[..., Any], mark: Mark, skip: int) -> Method:
    body = inspect.unwrap(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise InvalidError(f"{function.__qualname__} yields: a call has one result. Return a list instead.")
    signature = inspect.signature(function)
    signature = signature.replace(parameters=list(signature.parameters.values())[skip:])
    if mark.kind == "web":
        try:
            signature.bind(object())
        except TypeError:
            raise InvalidError(
                f"{function.__qualname__} is a web endpoint and is called with one thaw.Request, but has the signature "
                f"{signature_text(signature)}"
            ) from None
    return Method(name, "web" if mark.kind == "web" else "method", is_async(function), signature_text(signature))


def _skips_self(cls: type, name: str) -> int:
    """How many parameters getattr(cls, name) has before those of a call."""
    return 0 if isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod)) else 1


def _check_hook(cls: type, name: str, mark: Mark, settings: Settings) -> None:
    if mark.snap and not settings.enable_memory_snapshot:
        raise InvalidError(
            f"{cls.__name__}.{name} is marked {mark.decorator()}, but {cls.__name__} has no memory snapshot. Turn it on:\n\n"
            f"    @app.cls(enable_memory_snapshot=True)\n    class {cls.__name__}:\n\n"
            f"or let the method run at every start: @thaw.enter()"
        )
    function = getattr(cls, name)
    body = inspect.unwrap(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise InvalidError(f"{cls.__name__}.{name} is marked {mark.decorator()} and yields: write one method to enter and one to exit")
    try:
        inspect.signature(function).bind(*[object()] * _skips_self(cls, name))
    except TypeError:
        raise InvalidError(
            f"{cls.__name__}.{name} is marked {mark.decorator()} and is called without arguments, but has the signature "
            f"{signature_text(inspect.signature(function))}. Values that an instance is made with are parameters: "
            f"size: int = thaw.parameter(default=3)"
        ) from None


def _check_constructor(cls: type) -> None:
    constructor = inspect.getattr_static(cls, "__init__")
    if constructor is object.__init__:
        return
    signature = inspect.signature(constructor)
    # A default of __init__ would win over the parameter without a word.
    both = [name for name in parameters.parameters(cls) if name in signature.parameters]
    if both:
        raise InvalidError(
            f"{cls.__name__}.__init__ takes {both[0]}, and nobody gives it: the parameter {both[0]} is set before __init__ runs. Use self.{both[0]} there"
        )
    try:
        signature.bind(object())
    except TypeError:
        raise InvalidError(
            f"{cls.__name__}.__init__ needs arguments, and there is nobody to give them. Declare parameters in the class body, "
            f"which are set before __init__ runs: size: int = thaw.parameter(default=3)"
        ) from None


def _check_warmup_method(cls: type, name: str) -> None:
    function = getattr(cls, name, None)
    if not callable(function):
        raise InvalidError(f"{cls.__name__} has no method {name} to warm up with")
    try:
        inspect.signature(function).bind(*[object()] * _skips_self(cls, name))
    except TypeError:
        raise InvalidError(
            f"{cls.__name__}.{name} needs arguments: give the warm-up as something to call, "
            f"as warmup=lambda {cls.__name__.lower()}: {cls.__name__.lower()}.{name}(...)"
        ) from None


def _check_settings(name: str, settings: Settings) -> None:
    def need(good: bool, message: str) -> None:
        if not good:
            raise InvalidError(f"{name}: {message}")

    def number(value: object) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    s = settings
    need(isinstance(s.enable_memory_snapshot, bool), "enable_memory_snapshot is True or False")
    need(type(s.concurrency) is int and s.concurrency >= 1, f"concurrency is {s.concurrency!r}: it is the number of calls at once, from 1")
    need(type(s.min_instances) is int and s.min_instances >= 0, f"min_instances is {s.min_instances!r}: it is a number from 0")
    need(s.cpu is None or (number(s.cpu) and s.cpu > 0), f"cpu is {s.cpu!r}: it is a number of CPUs, such as 0.5")
    need(
        s.idle_timeout is None or (number(s.idle_timeout) and s.idle_timeout > 0),
        f"idle_timeout is {s.idle_timeout!r}: it is a number of seconds",
    )
    need(
        all(isinstance(k, str) and isinstance(v, str) for k, v in s.env.items()),
        f"env is {dict(s.env)!r}: names and values are texts",
    )
    need(
        not isinstance(s.secrets, str) and all(isinstance(x, str) for x in s.secrets),
        f"secrets is {s.secrets!r}: it is a list of names; the values are not written into the file",
    )
    need(s.template is None or isinstance(s.template, Template), f"template is {s.template!r}: it is a thaw.Template([...])")
    need(s.warmup is None or isinstance(s.warmup, str) or callable(s.warmup), f"warmup is {s.warmup!r}: it is the name of a method, or something to call")
    need(s.warmup is None or s.enable_memory_snapshot, "a warm-up runs before the memory is frozen: set enable_memory_snapshot=True, too")
    memory_bytes(s.memory)
    gpu_name(s.gpu)
