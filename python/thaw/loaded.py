"""What the dynamic loader has loaded into this process, and the slots through which it calls other libraries: Linux, ELF, 64 bits, with addends
in the relocations, as on amd64 and arm64. Names and layouts are those of elf(5) and of the System V ABI.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import struct
from typing import Any, Callable, Iterator, NamedTuple

# R_*_GLOB_DAT and R_*_JUMP_SLOT, the relocations of slots that hold the address of a function of another library.
_SLOTS = {"x86_64": (6, 7), "aarch64": (1025, 1026)}

_libc = ctypes.CDLL(None, use_errno=True)

# With the interpreter's lock held all the while: dl_iterate_phdr has the loader's, which a thread that imports may want with the interpreter's.
_libc_locked = ctypes.PyDLL(None)


class Object(NamedTuple):
    """A loaded library or program."""

    base: int
    name: bytes
    headers: int  # address of its program headers
    header_count: int


class Slot(NamedTuple):
    address: int
    function: int  # what it led to
    guarded: bool  # whether the loader has made it read-only


class _Header(ctypes.Structure):
    """Elf64_Phdr."""

    _fields_ = [("type", ctypes.c_uint32), ("flags", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64) for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")
    ]


_DYNAMIC, _RELRO = 2, 0x6474E552


class _Info(ctypes.Structure):
    """struct dl_phdr_info, of dl_iterate_phdr(3)."""

    _fields_ = [
        ("base", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_uint64),
        ("count", ctypes.c_uint16),
        ("added", ctypes.c_ulonglong),
        ("removed", ctypes.c_ulonglong),
    ]


_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_size_t, ctypes.c_void_p)


def _iterate(see: Callable[[Any], int]) -> None:
    """Calls see for each loaded object until it returns something else than 0."""
    _libc_locked.dl_iterate_phdr(_CALLBACK(lambda info, size, data: see(info)), None)


def objects(skip: int) -> list[Object]:
    """All loaded objects but the first ones, in the order in which they were loaded."""
    found: list[Object] = []
    left = skip

    def see(info: Any) -> int:
        nonlocal left
        if left:
            left -= 1
            return 0
        of = info.contents
        found.append(Object(of.base, of.name or b"", of.headers, of.count))
        return 0

    _iterate(see)
    return found


class Known:
    """Which objects have been seen. There are hundreds, and a program loads hundreds one after the other: only the new ones are looked at."""

    def __init__(self) -> None:
        self._count = 0
        self._added = self._removed = -1

    def new(self) -> list[Object]:
        added = removed = 0

        def see(info: Any) -> int:
            nonlocal added, removed
            added, removed = info.contents.added, info.contents.removed
            return 1

        _iterate(see)
        if added == self._added and removed == self._removed:
            return []
        if removed != self._removed:
            self._count = 0  # those behind have moved up
        found = objects(self._count)
        self._count += len(found)
        self._added, self._removed = added, removed
        return found


# Tags of Elf64_Dyn.
_NEEDED, _PLTRELSZ, _STRTAB, _SYMTAB, _RELA, _RELASZ, _JMPREL, _RELACOUNT = 1, 2, 5, 6, 7, 8, 23, 0x6FFFFFF9


def slots(one: Object, library: re.Pattern[bytes], function: re.Pattern[bytes]) -> Iterator[Slot]:
    """The slots of an object that lead to functions whose names match, if it needs a library whose name matches. They are the object's own."""
    headers = (_Header * one.header_count).from_address(one.headers)
    at = next((h.vaddr for h in headers if h.type == _DYNAMIC), None)
    if at is None:
        return
    needed, tags = _dynamic(one.base + at)

    def pointer(tag: int) -> int:
        # glibc has made addresses of them, musl has not.
        value = tags.get(tag, 0)
        return value if value >= one.base else one.base + value

    if not any(library.match(ctypes.string_at(pointer(_STRTAB) + offset)) for offset in needed):
        return
    relro = [range(one.base + h.vaddr, (one.base + h.vaddr + h.memsz) & -mmap.PAGESIZE) for h in headers if h.type == _RELRO]
    # The relative ones come first, by the hundred thousand.
    relative = 24 * tags.get(_RELACOUNT, 0)
    tables = [(pointer(_JMPREL), tags.get(_PLTRELSZ, 0)), (pointer(_RELA) + relative, tags.get(_RELASZ, 0) - relative)]
    for table, size in tables:
        for offset, symbol in _relocations(table, size):
            entry = pointer(_SYMTAB) + 24 * symbol
            name = ctypes.string_at(pointer(_STRTAB) + ctypes.c_uint32.from_address(entry).value)
            defined = ctypes.c_uint16.from_address(entry + 6).value
            if function.match(name) and not defined:
                address = one.base + offset
                yield Slot(address, ctypes.c_uint64.from_address(address).value, any(address in r for r in relro))


def _dynamic(at: int) -> tuple[list[int], dict[int, int]]:
    """The offsets of the names of needed libraries, and the other tags with their values."""
    needed: list[int] = []
    tags: dict[int, int] = {}
    while True:
        tag, value = ctypes.c_int64.from_address(at).value, ctypes.c_uint64.from_address(at + 8).value
        if tag == 0:
            return needed, tags
        if tag == _NEEDED:
            needed.append(value)
        else:
            tags[tag] = value
        at += 16


def _relocations(table: int, size: int) -> Iterator[tuple[int, int]]:
    """The offset and the symbol of each slot's Elf64_Rela."""
    if size <= 0:
        return
    kinds = _SLOTS[platform.machine()]
    for offset, kind, symbol, _ in struct.iter_unpack("=QIIq", ctypes.string_at(table, size)):
        if kind in kinds:
            yield offset, symbol


def write(values: dict[Slot, int]) -> None:
    """Gives slots, of objects that are still loaded, an address to lead to."""
    for slot, value in values.items():
        page = slot.address & -mmap.PAGESIZE
        if slot.guarded:
            protect(page, mmap.PROT_READ | mmap.PROT_WRITE)
        # One store: another thread may be calling through it.
        ctypes.c_uint64.from_address(slot.address).value = value
        if slot.guarded:
            protect(page, mmap.PROT_READ)


def protect(page: int, protection: int) -> None:
    """Sets the protection of a page: mmap.PROT_READ and the like."""
    if _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), protection) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
