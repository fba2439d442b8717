"""What the tests of instances ask of an instance."""

import ctypes
import os
import random
import socket
import sys
import tempfile
import time


class Probe:
    """Has a file of each kind before it is frozen, and tells about them."""

    def __init__(self, fail=None, megabytes=0):
        if fail == "die":
            print("about to die", flush=True)
            os._exit(3)
        if fail == "raise":
            raise ValueError("no such model")
        if fail == "memory":
            hog = bytearray(1 << 30)
            hog[::4096] = b"x" * len(hog[::4096])
        self.counter = 0
        self.ballast = os.urandom(megabytes << 20)
        self.open = open("/tmp/open", "w+")
        self.open.write("written before the freeze\n")
        self.open.flush()
        self.second = os.dup(self.open.fileno())
        self.deleted = tempfile.TemporaryFile(dir="/tmp")
        self.deleted.write(b"deleted and open")
        self.deleted.flush()
        os.makedirs("/var/data", exist_ok=True)
        with open("/var/data/kept", "w") as f:
            f.write("kept")
        os.link("/var/data/kept", "/var/data/linked")
        if os.path.exists("/etc/motd"):
            os.remove("/etc/motd")
        print("loaded", flush=True)

    def count(self):
        self.counter += 1
        return self.counter

    def echo(self, value):
        return value

    def read(self, path):
        with open(path) as f:
            return f.read()

    def write(self, path, text):
        with open(path, "w") as f:
            f.write(text)

    def exists(self, path):
        return os.path.lexists(path)

    def same_inode(self, a, b):
        return os.stat(a).st_ino == os.stat(b).st_ino

    def files(self):
        """What the files that were open at the freeze hold now."""
        self.open.seek(0)
        self.deleted.seek(0)
        return [self.open.read(), self.deleted.read().decode(), os.fstat(self.open.fileno()).st_ino == os.fstat(self.second).st_ino]

    def append(self, text):
        self.open.seek(0, 2)
        self.open.write(text)
        self.open.flush()

    def hostname(self):
        return socket.gethostname()

    def environ(self, name):
        return os.environ.get(name)

    def draw(self):
        return random.random()

    def connect(self, host, port):
        with socket.create_connection((host, port), timeout=10) as s:
            return s.makefile().readline()

    def interfaces(self):
        return sorted(name for _, name in socket.if_nameindex())

    def device(self, path):
        with open(path, "rb") as f:
            return os.major(os.fstat(f.fileno()).st_rdev)

    def sleep(self, seconds):
        print("sleeping", flush=True)
        time.sleep(seconds)

    def die(self):
        print("dying", flush=True)
        os._exit(9)

    def boom(self):
        raise KeyError("boom")

    def sys_path(self):
        return [sys.path, ctypes.sizeof(ctypes.c_void_p)]
