"""Where memory lies that an author loads before the freeze."""

from __future__ import annotations

import sys

import pytest

from conftest import Apps

APP = """
import thaw

app = thaw.App("heap")

def places(sizes):
    made = [bytes(n) for n in sizes]
    return [id(b) % 4096 for b in made], made

@app.cls(enable_memory_snapshot=True)
class Thing:
    shift: int = thaw.parameter(default=0)

    @thaw.enter(snap=True)
    def load(self):
        # A large block that is freed has glibc take later ones, if they are not larger, from the heap.
        del [bytes(8 << 20)][:]
        self.before, self.kept = places([300_000, 600_000 + self.shift, 2_000_000])

    @thaw.method()
    def where(self):
        after, kept = places([300_000, 600_000, 2_000_000])
        return {"before": self.before, "after": after}
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_large_blocks_of_the_load_begin_at_one_place_of_a_page(apps: Apps) -> None:
    runner = apps.host(APP)
    runner.start()
    where = runner.value("where")
    assert len(set(where["before"])) == 1, "blocks of the load lie where other memory has left room"
    assert len(set(where["after"])) > 1, "blocks of calls have mappings of their own, which is slow"
