"""Secrets come with the start. The marker shows where to look for what must not be there."""

import os

import thaw

app = thaw.App("secret")


class Keeper:
    @thaw.enter(snap=True)
    def load(self):
        self.before = os.environ.get("E2E_TOKEN")
        self.marker = "marker-" + os.urandom(16).hex()
        self.copies = [self.marker.encode() for _ in range(64)]

    @thaw.method()
    def report(self):
        return {"before": self.before, "now": os.environ.get("E2E_TOKEN"), "given": dict(thaw.restore_env()).get("E2E_TOKEN"), "marker": self.marker}


@app.cls(enable_memory_snapshot=True, secrets=["E2E_TOKEN"])
class Knows(Keeper):
    pass


@app.cls(enable_memory_snapshot=True, secrets=["E2E_TOKEN", "E2E_MISSING"])
class Misses(Keeper):
    pass


@app.cls(enable_memory_snapshot=True)
class Ignorant(Keeper):
    pass
