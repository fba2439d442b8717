"""GPUs are not there before the freeze, and may be there after the restore. Nothing that asked before may remember the answer."""

from __future__ import annotations

import os
import sys
from typing import Any, Mapping

from . import cudart

# Empty: CUDA sees no GPU. 1: torch asks the management library, which has no state that stays, instead of initialising CUDA, which would
# remember for good that there was no GPU.
_HIDDEN = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}

_before: dict[str, str | None] = {}


def hide() -> None:
    """Lets this process see no GPU until reveal."""
    for name, value in _HIDDEN.items():
        _before.setdefault(name, os.environ.get(name))
        os.environ[name] = value
    cudart.hold()


def later(env: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables that may be set while GPUs are hidden. What says which GPUs may be seen is kept for reveal."""
    env = dict(env)
    if "CUDA_VISIBLE_DEVICES" in env:
        _before["CUDA_VISIBLE_DEVICES"] = env.pop("CUDA_VISIBLE_DEVICES")
    return env


def reveal() -> None:
    """Undoes hide, and makes torch forget what it found out."""
    cudart.release()
    visible = _before.pop("CUDA_VISIBLE_DEVICES", None)
    _before.clear()
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        if visible is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
    forget()


def forget() -> None:
    """Clears what torch remembers of the number of GPUs."""
    cuda: Any = sys.modules.get("torch.cuda")
    if cuda is None:
        return
    if hasattr(cuda, "_cached_device_count") and not cuda.is_initialized():
        cuda._cached_device_count = None
    # In older versions these are cached functions.
    for name in ("device_count", "is_available", "_raw_device_count_nvml"):
        clear = getattr(getattr(cuda, name, None), "cache_clear", None)
        if clear is not None:
            clear()


def initialised() -> str | None:
    """What of this process holds a GPU; None if nothing does. Such a process cannot be frozen."""
    cuda: Any = sys.modules.get("torch.cuda")
    if cuda is not None and cuda.is_initialized():
        return "torch has initialised CUDA"
    return None


def device() -> str:
    """Where a model belongs on this machine, for torch's .to(): "cuda" if there is a GPU that torch can use, else "cpu".

    Before the freeze it is always "cpu"; ask in an enter(snap=False) method.
    """
    torch: Any = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
