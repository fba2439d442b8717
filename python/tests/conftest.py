"""What the tests share: a host that drives a real runner over pipes, and apps written to files."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Iterator

import pytest

PACKAGE = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE.parent

# After so long without an event a runner hangs, and the test fails instead of hanging, too.
HANGS_AFTER = 60.0


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: this one's, with the package on the path."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1", **more}


def missing(what: str) -> None:
    """Leaves a test out, or lets it fail where nothing may be left out."""
    if os.environ.get("THAW_REQUIRE") == "1":
        pytest.fail(what)
    pytest.skip(what)


def privileged() -> bool:
    """Whether this process may make namespaces."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode == 0


def in_root_file_system(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the Python of the root file system, which has numpy and torch, to its end.

    The repository lies at /mnt there for the time, in a mount namespace that nobody else sees; the Python is the first process of a pid namespace.
    """
    root = Path(os.environ.get("THAW_ROOTFS") or REPOSITORY / ".deps" / "rootfs")
    if not (root / "usr/bin/python3").exists():
        missing(f"there is no root file system at {root}: make deps")
    if not privileged():
        pytest.skip("not root: the Python in the root file system, which has numpy and torch, cannot be entered")
    script = 'mount --bind "$1" "$2/mnt" && mount -t proc proc "$2/proc" && mount -t tmpfs tmpfs "$2/tmp" && shift && exec chroot "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh"]
    command += [str(REPOSITORY), str(root), "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "HOME=/tmp", "PYTHONPATH=/mnt/python"]
    command += ["PYTHONDONTWRITEBYTECODE=1", "python3", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5 * HANGS_AFTER)


class Host:
    """The other end of the conversation."""

    def __init__(self, app: Path, tmp_path: Path, **env: str) -> None:
        self.app = app
        self._log = tmp_path / "log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "thaw.runner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(**env),
                cwd=tmp_path,
            )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._buffer = b""

    def send(self, text: str) -> None:
        """Sends text as it is."""
        self.stdin.write(text.encode())
        self.stdin.flush()

    def say(self, op: str, **fields: Any) -> None:
        """Sends a command."""
        self.send(json.dumps({"op": op, **fields}) + "\n")

    def event(self) -> dict[str, Any]:
        """The next event; {} at the end of the runner's output."""
        while b"\n" not in self._buffer:
            if not select.select([self.stdout], [], [], HANGS_AFTER)[0]:
                self.process.kill()
                pytest.fail(f"no event comes; the log is:\n{self.log()}")
            data = os.read(self.stdout.fileno(), 1 << 16)
            if not data:
                assert not self._buffer, f"a line that does not end: {self._buffer!r}"
                return {}
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        event = json.loads(line)
        assert isinstance(event, dict)
        return event

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Sends a command, and returns the next event."""
        self.say(op, **fields)
        return self.event()

    def load(self, name: str = "Thing", **fields: Any) -> dict[str, Any]:
        """Sends load for an object of the app."""
        return self.ask("load", file=str(self.app), object=name, **fields)

    def boot(self, restored: bool = False, **fields: Any) -> dict[str, Any]:
        """Sends boot with what a host always says."""
        return self.ask("boot", restored=restored, **{"generation": "0" * 32, "env": {}, "reseed": True, **fields})

    def start(self, name: str = "Thing", restored: bool = False, **fields: Any) -> None:
        """Loads an object and boots it, and checks that it works."""
        loaded = self.load(name)
        assert loaded["event"] == "loaded", loaded
        if restored:
            assert self.ask("prepare")["event"] == "prepared"
        ready = self.boot(restored, **fields)
        assert ready["event"] == "ready", ready

    def call(self, method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One call, and its answer."""
        return self.ask("call", id=1, method=method, args=list(args), kwargs=kwargs)

    def value(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of a call that succeeds."""
        answer = self.call(method, *args, **kwargs)
        assert answer["event"] == "result", answer
        return answer["value"]

    def end(self) -> tuple[list[dict[str, Any]], int]:
        """Closes the runner's input; the events that are left, and the exit code."""
        self.stdin.close()
        return self.rest()

    def rest(self) -> tuple[list[dict[str, Any]], int]:
        """The events up to the runner's end, and its exit code."""
        events = []
        while event := self.event():
            events.append(event)
        return events, self.process.wait(HANGS_AFTER)

    def log(self) -> str:
        """What the runner wrote to standard error so far."""
        return self._log.read_text()

    def lines(self) -> list[str]:
        """The lines that the app printed with a star in front: what ran, in order."""
        return [line[2:] for line in self.log().splitlines() if line.startswith("* ")]


class Apps:
    """Writes apps, and starts hosts for them."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.hosts: list[Host] = []

    def write(self, code: str, name: str = "app.py") -> Path:
        """Writes a file; code may be indented as a whole."""
        file = self.folder / name
        file.write_text(textwrap.dedent(code))
        return file

    def host(self, code: str, **env: str) -> Host:
        """A host with a runner that has been told nothing yet."""
        host = Host(self.write(code), self.folder, **env)
        self.hosts.append(host)
        return host

    def python(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs Python with the package on the path, to its end."""
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment(**env), timeout=HANGS_AFTER, cwd=self.folder
        )


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    """Apps in a folder of their own; runners that a failed test left are ended."""
    made = Apps(tmp_path)
    yield made
    for host in made.hosts:
        if host.process.poll() is None:
            host.process.kill()
            host.process.wait()
        for stream in (host.stdin, host.stdout):
            try:
                stream.close()
            except BrokenPipeError:
                pass
