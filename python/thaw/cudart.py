"""CUDA's runtime library asks once in the life of a process whether there is a GPU, and keeps a no for good. Before the freeze the answer is
always no, and libraries ask where nobody would think of it: transformers asks in each forward pass whether a stream is being captured. So
the question is kept from it until there may be a GPU.

The driver's library, below it, asks again each time. Seen with CUDA 13.0 and driver 580: once cudaGetDeviceCount has failed with
cudaErrorNoDevice, because of CUDA_VISIBLE_DEVICES or for want of device nodes, it fails for ever, while cuInit of the same process succeeds.

While held, the slots through which loaded libraries call the runtime (their global offset tables, as the System V ABI has them) lead to a
function that returns cudaErrorNoDevice. A library that has the runtime within itself, or finds it by dlsym, is not held.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import mmap
import platform
import re
import sys
import threading
from typing import Any, Callable, NamedTuple

from . import loaded

# long f() { return VALUE; } on each processor.
_RETURN: dict[str, Callable[[int], bytes]] = {
    "x86_64": lambda value: b"\x48\xb8" + value.to_bytes(8, "little") + b"\xc3",  # movabs $value, %rax; ret
    "aarch64": lambda value: b"\x40\x00\x00\x58\xc0\x03\x5f\xd6" + value.to_bytes(8, "little"),  # ldr x0, .+8; ret; value
}


class _Rule(NamedTuple):
    """Which functions of which library are held, and what they return meanwhile: a number, or the address of a text."""

    needs: re.Pattern[bytes]
    function: re.Pattern[bytes]
    result: int | bytes


# Wheels rename the libraries that they bring: libcudart-1a2b3c4d.so.13.
_CUDART = re.compile(rb"libcudart[.-]")

_RULES = (
    # All that return an error code. What begins with __cuda registers code when a library is loaded.
    _Rule(_CUDART, re.compile(rb"cuda(?!GetErrorName$|GetErrorString$)[A-Z]"), 100),
    # These ask for a GPU like the others before they answer.
    _Rule(_CUDART, re.compile(rb"cudaGetErrorName$"), b"cudaErrorNoDevice"),
    _Rule(_CUDART, re.compile(rb"cudaGetErrorString$"), b"no CUDA-capable device before the freeze: use it in enter(snap=False)"),
    # c10::cuda::device_count() of torch, which keeps the first answer, too.
    _Rule(re.compile(rb"libc10_cuda[.-]"), re.compile(rb"_ZN3c104cuda12device_countEv$"), 0),
)


def hold() -> None:
    """Keeps calls from the runtime library, also those of libraries that will be loaded, until release. Only on amd64 and arm64."""
    if platform.system() != "Linux" or platform.machine() not in _RETURN or _holder.active:
        return
    try:
        _holder.begin()
    except OSError as err:
        _warn(err)


def _warn(err: OSError) -> None:
    print(f"thaw: what asks CUDA's runtime for a GPU before the freeze will find none after the restore: {err}", file=sys.stderr)


def release() -> None:
    """Lets calls go to the runtime library again."""
    if _holder.active:
        _holder.end()


class _Holder:
    def __init__(self) -> None:
        self.active = False
        self._lock = threading.RLock()  # a signal handler may import, too
        self._stubs: dict[int | bytes, mmap.mmap] = {}  # by what they return
        self._known = loaded.Known()
        self._changed: dict[loaded.Object, list[loaded.Slot]] = {}
        self._undo: list[Callable[[], None]] = []

    def begin(self) -> None:
        for result in {rule.result for rule in _RULES} - self._stubs.keys():
            self._stubs[result] = _stub(result)
        self.active = True
        # Every way by which Python code loads a library.
        self._follow(importlib.machinery.ExtensionFileLoader, "create_module")
        self._follow(ctypes, "_dlopen")
        self.look()

    def end(self) -> None:
        for undo in self._undo:
            undo()
        self._undo.clear()
        with self._lock:
            self.active = False
            there = set(loaded.objects(0))
            for one, slots in self._changed.items():
                if one in there:
                    loaded.write({s: s.function for s in slots})
            self._changed.clear()
            self._known = loaded.Known()

    def look(self) -> None:
        """Holds the libraries that are new."""
        with self._lock:
            if not self.active:
                return
            addresses = {result: _address(stub) for result, stub in self._stubs.items()}
            for one in self._known.new():
                for rule in _RULES:
                    # One that was seen before is held already, unless it has gone and come back.
                    slots = [s for s in loaded.slots(one, rule.needs, rule.function) if s.function not in addresses.values()]
                    if slots:
                        self._changed.setdefault(one, []).extend(slots)
                        loaded.write({s: addresses[rule.result] for s in slots})

    def _follow(self, owner: Any, name: str) -> None:
        """Has a function of owner look at what it has loaded."""
        original = vars(owner).get(name)
        if original is None:
            return

        def loading(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            try:
                self.look()
            except OSError as err:
                _warn(err)  # the library works all the same
            return result

        setattr(owner, name, loading)
        self._undo.append(lambda: setattr(owner, name, original))


def _stub(result: int | bytes) -> mmap.mmap:
    """Memory with a function that returns the number, or the address of the text."""
    memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    make = _RETURN[platform.machine()]
    if isinstance(result, bytes):
        at = len(make(0))
        memory[at : at + len(result) + 1] = result + b"\0"
        result = _address(memory) + at
    memory[: len(make(0))] = make(result)
    loaded.protect(_address(memory), mmap.PROT_READ | mmap.PROT_EXEC)
    return memory


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


_holder = _Holder()
