"""Thaw: functions whose every cold boot resumes from memory.

    import thaw

    app = thaw.App("hello")

    @app.cls(enable_memory_snapshot=True)
    class Model:
        @thaw.enter(snap=True)
        def load(self): ...         # before the memory is frozen: no network, no GPU

        @thaw.enter()
        def setup(self): ...        # at every start, after a restore too

        @thaw.method()
        def predict(self, text: str) -> float: ...

`python3 -m thaw run app.py::Model.predict --json '{"text": "..."}'` calls it without a server, with the same hooks in the same order.
"""

from .app import App
from .boot import generation, is_restored, restore_env, snapshot_age
from .definition import Template
from .errors import Error, InvalidError
from .generators import register_rng
from .gpu import device
from .hooks import enter, exit, method, web_endpoint
from .parameters import parameter
from .registry import after_restore, before_snapshot, register_reconnect
from .testing import started
from .version import VERSION as __version__
from .web import Request, Response

__all__ = [
    "App",
    "Error",
    "InvalidError",
    "Request",
    "Response",
    "Template",
    "__version__",
    "after_restore",
    "before_snapshot",
    "device",
    "enter",
    "exit",
    "generation",
    "is_restored",
    "method",
    "parameter",
    "register_reconnect",
    "register_rng",
    "restore_env",
    "snapshot_age",
    "started",
    "web_endpoint",
]
