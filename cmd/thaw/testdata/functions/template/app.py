"""Two functions on one template."""

import thaw

app = thaw.App("template", template=thaw.Template(["numpy", "decimal", "sqlite3", "asyncio"]))


@app.cls(enable_memory_snapshot=True)
class First:
    @thaw.enter(snap=True)
    def load(self):
        import numpy

        self.sum = int(numpy.arange(1000).sum())

    @thaw.method()
    def value(self):
        return self.sum


@app.function(enable_memory_snapshot=True)
def second(x: int):
    import decimal

    return str(decimal.Decimal(x) / 4)
