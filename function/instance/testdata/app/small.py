"""A small function, for the real runner."""

import thaw

app = thaw.App("small")


@app.cls(enable_memory_snapshot=True)
class Small:
    @thaw.enter(snap=True)
    def load(self):
        self.counter = 0

    @thaw.method()
    def count(self):
        self.counter += 1
        return self.counter
