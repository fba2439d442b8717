"""What there is of the world outside before the freeze, and after it."""

import os
import socket
import subprocess
import sys
import urllib.request

import thaw

app = thaw.App("outside")

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)"


def tried(attempt):
    """What an attempt came to: a text, or the name and number of the error."""
    try:
        return attempt()
    except OSError as err:
        return f"{type(err).__name__} {err.errno}"


@app.cls(enable_memory_snapshot=True)
class Network:
    host: str = thaw.parameter()
    port: int = thaw.parameter()

    @thaw.enter(snap=True)
    def load(self):
        self.before = {"connect": tried(self.connect), "lookup": tried(lambda: socket.getaddrinfo("example.invalid", 80)), "child": self.child()}

    @thaw.enter()
    def setup(self):
        self.after = tried(self.connect)

    def connect(self):
        with socket.create_connection((self.host, self.port), timeout=60) as connection:
            return connection.makefile().readline()

    def child(self):
        """A program that knows nothing of the rules: it has nobody to talk to."""
        command = [sys.executable, "-I", "-c", CONNECT, self.host, str(self.port)]
        return subprocess.run(command, capture_output=True, text=True).stderr.strip().rpartition("\n")[2]

    @thaw.method()
    def report(self):
        return {"before": self.before, "entered": self.after, "now": self.connect(), "child": self.child(), "interfaces": sorted(n for _, n in socket.if_nameindex())}


class Looks:
    path: str = thaw.parameter()

    def look(self):
        return {"visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "there": os.path.exists(self.path), "opens": tried(lambda: os.close(os.open(self.path, os.O_RDONLY)))}

    @thaw.method()
    def report(self):
        return [self.loaded, self.entered, self.look()]

    @thaw.enter()
    def setup(self):
        self.entered = self.look()


@app.cls(enable_memory_snapshot=True, gpu="any")
class Device(Looks):
    @thaw.enter(snap=True)
    def load(self):
        self.loaded = self.look()


@app.cls(gpu="any")
class NeverFrozen(Looks):
    def __init__(self):
        self.loaded = self.look()


@app.cls(enable_memory_snapshot=True)
class NoDevice(Looks):
    @thaw.enter(snap=True)
    def load(self):
        self.loaded = self.look()
