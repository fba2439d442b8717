"""No network before the freeze."""

from __future__ import annotations

import errno
import socket
from typing import Iterator

import pytest

from conftest import Apps
from thaw import network

# An address that belongs to nobody: for documentation.
NOWHERE = ("192.0.2.1", 80)


@pytest.fixture(autouse=True)
def blocked() -> Iterator[None]:
    network.block()
    yield
    network.allow()


def test_a_connection_fails_at_once() -> None:
    with socket.socket() as s:
        with pytest.raises(OSError, match="available after the restore") as error:
            s.connect(NOWHERE)
        assert error.value.errno == errno.ENETUNREACH
        assert s.connect_ex(NOWHERE) == errno.ENETUNREACH
    with pytest.raises(OSError, match="available after the restore"):
        socket.create_connection(NOWHERE)


def test_datagrams_fail_too() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        with pytest.raises(OSError, match="192.0.2.1:80"):
            s.sendto(b"x", NOWHERE)
        with pytest.raises(OSError, match="192.0.2.1:80"):
            s.sendmsg([b"x"], [], 0, NOWHERE)


@pytest.mark.parametrize("lookup", [socket.gethostbyname, socket.gethostbyname_ex, lambda name: socket.getaddrinfo(name, 80)])
def test_a_lookup_fails_at_once(lookup) -> None:  # type: ignore[no-untyped-def]
    # The functions in the list are those from before the guard.
    guarded = getattr(socket, getattr(lookup, "__name__", ""), lookup)
    with pytest.raises(socket.gaierror, match="api.example"):
        guarded("api.example")


def test_loopback_and_numbers_and_unix_sockets_are_left_alone() -> None:
    assert socket.getaddrinfo("localhost", 80)
    assert socket.getaddrinfo("192.0.2.1", 80)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x")
    left, right = socket.socketpair()
    with left, right:
        left.sendmsg([b"x"])
        assert right.recv(1) == b"x"


def test_each_target_is_named_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        for target in ("one.example", "two.example"):
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo(target, 443)
    log = capfd.readouterr().err
    assert log.count("(one.example)") == 1 and log.count("(two.example)") == 1
    assert "@thaw.enter(snap=False)" in log and "[test_network.py:" in log


def test_what_was_copied_under_the_guard_works_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    copied, method = socket.getaddrinfo, socket.socket.connect
    network.allow()
    assert socket.getaddrinfo is not copied and "connect" not in vars(socket.socket)
    asked: list[object] = []
    monkeypatch.setattr("_socket.getaddrinfo", lambda *args: asked.append(args) or [])
    copied("api.example", 443)
    assert asked
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            method(s, NOWHERE)
        except OSError as err:
            # Where there is no network at all the kernel says so, in its own words.
            assert "restore" not in str(err)


def test_what_somebody_put_over_the_guard_stays() -> None:
    before = socket.getaddrinfo

    def over(*args: object) -> object:
        return before(*args)

    socket.getaddrinfo = over  # type: ignore[assignment]
    network.allow()
    assert socket.getaddrinfo is over
    network.block()
    network.allow()
    socket.getaddrinfo = before


APP = """
import socket
import thaw

app = thaw.App("network")

def ask():
    try:
        socket.getaddrinfo("api.example", 443)
    except OSError as err:
        return str(err)

@app.cls(enable_memory_snapshot=True)
class Thing:
    @thaw.enter(snap=True)
    def load(self): self.before = [ask() for _ in range(3)]
    @thaw.enter()
    def setup(self): self.guarded = "guarded" in repr(vars(socket.socket)) or socket.getaddrinfo.__module__ != "socket"
    @thaw.method()
    def call(self): return [self.before, self.guarded]
"""


@pytest.mark.parametrize("restored", [True, False])
def test_the_guard_is_there_until_the_start(restored: bool, apps: Apps) -> None:
    host = apps.host(APP)
    host.start(restored=restored)
    before, guarded = host.value("call")
    assert all("restore" in text for text in before) and not guarded
    assert host.log().count("thaw: no network before the freeze (api.example)") == 1
    assert "[app.py:9 in ask]" in host.log()


def test_a_host_with_a_network_turns_the_guard_off(apps: Apps) -> None:
    host = apps.host(APP)
    assert host.load(network=True)["event"] == "loaded"
    assert "no network" not in host.log()
