"""No network before the freeze: attempts fail at once, and the log says what to do instead.

The container has no way out then, so this is about the message, and about not waiting for time-outs. Connections over loopback and Unix sockets,
and names that need no server, are left alone.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from types import FrameType
from typing import Any, Callable

from .tracebacks import is_ours

# The targets that the log has named.
_named: set[str] = set()
# What was in the places where the guard is now. Empty while there is no guard.
_lookups: dict[str, Any] = {}

_METHODS = ("connect", "connect_ex", "sendto", "sendmsg")
_LOOKUPS = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr")


def block() -> None:
    """Lets connection attempts and name lookups fail from now on."""
    if _lookups:
        return
    for name in _LOOKUPS:
        _lookups[name] = getattr(socket, name)
        setattr(socket, name, _guarded_lookup(name, _lookups[name]))
    for name in _METHODS:
        # The methods are those of a base class in C: what is set here hides them, and is taken away again.
        setattr(socket.socket, name, _guarded_method(name, getattr(socket.socket, name)))


def allow() -> None:
    """Takes the guard away."""
    if not _lookups:
        return
    for name, original in _lookups.items():
        setattr(socket, name, original)
    _lookups.clear()
    for name in _METHODS:
        delattr(socket.socket, name)
    _named.clear()


def _guarded_method(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *args: Any) -> Any:
        if name == "sendmsg":
            address = args[3] if len(args) > 3 else None
        else:
            address = args[-1] if args else None
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and address and not _local(address[0]):
            message = _refuse(f"{address[0]}:{address[1]}" if len(address) > 1 else str(address[0]))
            if name == "connect_ex":
                return errno.ENETUNREACH
            raise OSError(errno.ENETUNREACH, message)
        return original(self, *args)

    return guarded


def _guarded_lookup(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        host = args[0] if args else kwargs.get("host")
        if not _local(host) and not _is_address(host):
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
