"""What cannot be frozen is found and named."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import Apps
from thaw import obstacles


def found() -> list[tuple[str, bool]]:
    return [(p.kind, p.blocks) for p in obstacles.find()]


@pytest.fixture(autouse=True)
def nothing_before() -> list[tuple[str, bool]]:
    """What the test runner itself has open is not the test's business."""
    return found()


def test_connections_are_named_and_pairs_and_listeners_are_not(nothing_before: list[Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket():
        left, right = socket.socketpair()
        with left, right:
            assert found() == nothing_before
        with socket.create_connection(server.getsockname()) as client:
            problems = [p for p in obstacles.find() if p.kind == "connection"]
            port = server.getsockname()[1]
            assert any(f"a TCP connection to 127.0.0.1:{port}, descriptor {client.fileno()}" == p.what for p in problems)
            assert all("before_snapshot" in p.hint and p.blocks for p in problems)


def test_a_unix_connection_to_a_child_is_frozen_with_it_and_one_to_another_is_not(tmp_path: Any, nothing_before: list[Any]) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
            # This process listens itself.
            assert found() == nothing_before
    ready, go = os.pipe()
    outer = os.fork()
    if outer == 0:
        # The grandchild is nobody's descendant when its parent has ended... so the server is a process beside this one, not below it.
        if os.fork():
            os._exit(0)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "other"))
            server.listen()
            os.write(go, b"x")
            server.accept()[0].recv(1)
        os._exit(0)
    os.waitpid(outer, 0)
    os.read(ready, 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "other"))
        if obstacles._in_our_tree(int.from_bytes(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")):
            pytest.skip("this process adopts orphans: it is the first of its pid namespace")
        assert found() == [*nothing_before, ("connection", True)]
    os.close(ready)
    os.close(go)


def test_inotify_is_named(nothing_before: list[Any]) -> None:
    fd = ctypes.CDLL(None).inotify_init()
    try:
        assert found() == [*nothing_before, ("inotify", True)]
    finally:
        os.close(fd)


def test_io_uring_is_named(nothing_before: list[Any]) -> None:
    parameters = ctypes.create_string_buffer(120)
    fd = ctypes.CDLL(None, use_errno=True).syscall(425, 4, parameters)
    if fd < 0:
        pytest.skip(f"this kernel gives no io_uring: {os.strerror(ctypes.get_errno())}")
    try:
        assert found() == [*nothing_before, ("io_uring", True)]
    finally:
        os.close(fd)


def test_an_open_gpu_is_named(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, nothing_before: list[Any]) -> None:
    # There need be no GPU here: a file stands for its device.
    device = tmp_path / "nvidia0"
    device.write_bytes(b"")
    monkeypatch.setitem(obstacles._DESCRIPTORS, str(device), obstacles._DESCRIPTORS["/dev/nvidia"])
    with open(device):
        assert found() == [*nothing_before, ("gpu", True)]


def test_a_pool_is_named_and_does_not_block_and_a_thread_is_not(nothing_before: list[Any]) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert found() == nothing_before
        with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
            both = threading.Barrier(2)
            list(pool.map(lambda _: both.wait(), range(2)))
            problem = [p for p in obstacles.find() if p.kind == "thread"]
            assert [(p.what, p.blocks) for p in problem] == [("the thread pool mine with 2 threads", False)]
    finally:
        stop.set()
        thread.join()


def test_the_loop_of_async_functions_is_no_obstacle(apps: Apps) -> None:
    host = apps.host("import thaw\napp = thaw.App('x')\n@app.function(enable_memory_snapshot=True)\nasync def f(): return 1\n")
    host.load("f")
    assert host.ask("prepare")["problems"] == []
    assert host.boot(restored=True)["event"] == "ready"
    assert host.value("f") == 1


def test_the_runner_names_what_the_author_left_open(apps: Apps) -> None:
    host = apps.host(
        """
        import socket, thaw
        app = thaw.App("x")
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        closed = socket.create_connection(server.getsockname())
        thaw.before_snapshot(closed.close)
        @app.function(enable_memory_snapshot=True)
        def f(): pass
        """
    )
    host.load("f")
    problems = host.ask("prepare")["problems"]
    assert [(p["kind"], p["blocks"]) for p in problems] == [("connection", True)]
    assert "127.0.0.1" in problems[0]["what"] and problems[0]["hint"]
