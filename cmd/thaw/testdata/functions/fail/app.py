"""What fails, at each step."""

import os

import thaw

app = thaw.App("fail")
on = app.cls(enable_memory_snapshot=True)


class Works:
    @thaw.method()
    def work(self):
        return "done"


@on
class InInit(Works):
    def __init__(self):
        raise ValueError("in init")


@on
class InSnap(Works):
    @thaw.enter(snap=True)
    def load(self):
        self.deeper()

    def deeper(self):
        raise ValueError("in enter(snap=True)")


@on
class InEnter(Works):
    @thaw.enter()
    def setup(self):
        raise ValueError("in enter")


@on
class InExit(Works):
    @thaw.exit()
    def bye(self):
        raise ValueError("in exit")


@on
class InBefore(Works):
    @thaw.enter(snap=True)
    def load(self):
        thaw.before_snapshot(self.close)

    def close(self):
        raise ValueError("in before_snapshot")


@on
class Restored(Works):
    @thaw.enter()
    def setup(self):
        if thaw.is_restored():
            raise ValueError("only when it is restored")


@on
class AfterRestore(Works):
    @thaw.enter(snap=True)
    def load(self):
        thaw.after_restore(self.open)

    def open(self):
        raise ValueError("in after_restore")


@on
class Connected(Works):
    @thaw.enter(snap=True)
    def load(self):
        import socket

        self.server = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.server.getsockname())


@app.cls(enable_memory_snapshot=True, memory="64MiB")
class Mistakes:
    size: int = thaw.parameter()
    path: str = thaw.parameter(default="")

    @thaw.method()
    def raises(self, depth: int):
        if depth:
            return self.raises(depth - 1)
        raise KeyError("no such thing")

    @thaw.method()
    def unserialisable(self):
        return {"inside": [object()]}

    @thaw.method()
    def add(self, a: int, b: int = 1):
        return a + b + self.size

    @thaw.method()
    def exits(self):
        raise SystemExit(3)

    @thaw.method()
    def dies(self):
        os._exit(3)

    @thaw.method()
    def eats(self):
        return len(bytearray(os.urandom(1) * (256 << 20)))

    @thaw.web_endpoint()
    def page(self, request):
        raise KeyError("no such page")

    def unmarked(self):
        return 1
