"""No network before the freeze: attempts fail at once, and the log says what to do instead.

The container has no way out then, so this is about the message, and about not waiting for time-outs. Connections over loopback and Unix sockets,
and names that need no server, are left alone.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import sys
from types import FrameType
from typing import Any, Callable

from .tracebacks import is_ours

# The targets that the log has named.
_named: set[str] = set()
# What stands in the places of socket.py while there is a guard, and what was there before. What others have copied from these places in the
# meantime lets everything through afterwards.
_active = False
_replaced: list[tuple[Any, str, Any, Any]] = []

_METHODS = ("connect", "connect_ex", "sendto", "sendmsg")
_LOOKUPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr")


def block() -> None:
    """Lets connection attempts and name lookups fail from now on."""
    global _active
    if _active:
        return
    _active = True
    for name in _LOOKUPS:
        _replace(socket, name, _guarded_lookup(getattr(socket, name)))
    for name in _METHODS:
        _replace(socket.socket, name, _guarded_method(name, getattr(socket.socket, name)))


def allow() -> None:
    """Takes the guard away."""
    global _active
    _active = False
    _named.clear()
    for place, name, ours, before in _replaced:
        if vars(place).get(name) is not ours:
            # Somebody has put something over it, which calls ours.
            continue
        if before is None:
            # A method of the base class, which is in C.
            delattr(place, name)
        else:
            setattr(place, name, before)
    _replaced.clear()


def _replace(place: Any, name: str, ours: Any) -> None:
    _replaced.append((place, name, ours, vars(place).get(name)))
    setattr(place, name, ours)


def _guarded_method(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: socket.socket, *args: Any) -> Any:
        if name == "sendmsg":
            address = args[3] if len(args) > 3 else None
        else:
            address = args[-1] if args else None
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if _active and internet and isinstance(address, tuple) and len(address) >= 2 and not _local(address[0]):
            message = _refuse(f"{address[0]}:{address[1]}")
            if name == "connect_ex":
                return errno.ENETUNREACH
            raise OSError(errno.ENETUNREACH, message)
        return original(self, *args)

    return guarded


def _guarded_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        host = args[0] if args else kwargs.get("host")
        if _active and not _local(host) and not _is_address(host):
            raise socket.gaierror(socket.EAI_AGAIN, _refuse(_text(host)))
        return original(*args, **kwargs)

    return guarded


def _refuse(target: str) -> str:
    message = (
        f"no network before the freeze ({target}): the network is available after the restore; "
        f"connect in a method marked @thaw.enter(snap=False)"
    )
    if target not in _named:
        _named.add(target)
        print(f"thaw: {message}{_place()}", file=sys.stderr, flush=True)
    return message


def _place() -> str:
    """Where the attempt was made: the innermost frame that belongs to no installed package."""
    frame: FrameType | None = sys._getframe(1)
    installed = (os.path.dirname(os.__file__) + os.sep, "<frozen")
    while frame is not None:
        file = frame.f_code.co_filename
        if not is_ours(file) and not file.startswith(installed) and "-packages" + os.sep not in file:
            return f" [{os.path.basename(file)}:{frame.f_lineno} in {frame.f_code.co_name}]"
        frame = frame.f_back
    return ""


def _text(host: object) -> str:
    return host.decode(errors="replace") if isinstance(host, (bytes, bytearray)) else str(host)


def _local(host: object) -> bool:
    """Whether a host is this one: nothing, localhost, its own name, or a loopback address."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = _text(host)
    if text == socket.gethostname():
        return True
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text.endswith(".localhost")
    # The address of "any host" means this one when something connects to it.
    return address.is_loopback or address.is_unspecified


def _is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(_text(host).partition("%")[0])
    except ValueError:
        return False
    return True
