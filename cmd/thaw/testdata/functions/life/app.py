"""How instances come and go."""

import hashlib
import os
import socket
import threading

import thaw

app = thaw.App("life")


@app.cls(enable_memory_snapshot=True)
class Counter:
    start: int = thaw.parameter(default=10)

    @thaw.enter(snap=True)
    def load(self):
        self.made = os.urandom(8).hex()
        self.count = self.start

    @thaw.exit()
    def bye(self):
        print(f"stopped at {self.count}")

    @thaw.method()
    def add(self, n: int):
        self.count += n
        return {"count": self.count, "made": self.made}

    @thaw.method()
    def meet(self, host: str, port: int):
        """Returns what a server says, which it does when all are there."""
        with socket.create_connection((host, port)) as connection:
            return connection.makefile().readline()


@app.function(enable_memory_snapshot=True)
def square(x: float):
    return x * x


@app.function(enable_memory_snapshot=True)
@thaw.web_endpoint()
def page(request: thaw.Request):
    if request.path == "/nothing":
        return None
    said = {"method": request.method, "path": request.path, "query": request.query_params, "body": request.text(), "x": request.header("X-Said")}
    return thaw.Response(said, status=201, headers={"X-Answer": "yes"})


@app.cls(concurrency=3)
class Crowd:
    def __init__(self):
        self.barrier = threading.Barrier(3)

    @thaw.method()
    def meet(self):
        """Returns when three calls are here at the same time."""
        return self.barrier.wait(timeout=60) in range(3)


@app.cls(concurrency=3)
class AsyncCrowd:
    def __init__(self):
        self.here = 0
        self.all = None

    @thaw.method()
    async def meet(self):
        import asyncio

        self.all = self.all or asyncio.Event()
        self.here += 1
        if self.here == 3:
            self.all.set()
        await self.all.wait()
        return True


@app.cls()
class SlowToLeave:
    @thaw.exit()
    def bye(self):
        hashlib.pbkdf2_hmac("sha256", b"work", b"for a while", 400_000)
        print("left as it should")

    @thaw.method()
    def work(self):
        return True
