"""A function for the real runner."""

import os
import random
import socket

import thaw

app = thaw.App("real")


@app.cls(enable_memory_snapshot=True)
class Real:
    fail: bool = thaw.parameter(default=False)

    @thaw.enter(snap=True)
    def load(self):
        self.order = ["snap"]
        self.before = socket.gethostname()
        try:
            socket.create_connection(("192.0.2.77", 80), timeout=10)
            self.order.append("network")
        except OSError:
            self.order.append("no network")

    @thaw.enter(snap=False)
    def setup(self):
        if self.fail and thaw.is_restored():
            raise RuntimeError("cannot be restored")
        self.order.append("setup")

    @thaw.exit()
    def leave(self):
        print("left", flush=True)

    @thaw.method()
    def tell(self):
        return [self.order, self.before, socket.gethostname()]

    @thaw.method()
    def draw(self):
        return random.random()

    @thaw.method()
    def boom(self):
        raise ValueError("boom")

    @thaw.method()
    def read(self, path):
        with open(path) as f:
            return f.read()

    @thaw.method()
    def environ(self, name):
        return os.environ.get(name)

    @thaw.web_endpoint()
    def page(self, request):
        return "page"
