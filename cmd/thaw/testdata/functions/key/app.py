"""Something to change."""

import os

import helper
import thaw

app = thaw.App("key", dependencies="requirements.lock", data=["*.bin"])


@app.cls(enable_memory_snapshot=True)
class Key:
    @thaw.enter(snap=True)
    def load(self):
        with open(os.path.join(os.path.dirname(__file__), "model.bin")) as file:
            self.data = file.read()

    @thaw.method()
    def value(self):
        return [helper.VALUE, self.data]
