"""With a real GPU: what torch says of it before the freeze and after the restore. The freeze itself is left out: a process that has seen no GPU is frozen
as any other."""

from __future__ import annotations

import glob
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]

# Hides the GPU as the runner does before the freeze, and its device nodes as the container does; then shows both.
SCRIPT = """
import ctypes, glob, sys
sys.path.insert(0, {package!r})
from thaw import gpu
libc = ctypes.CDLL(None, use_errno=True)
nodes = glob.glob("/dev/nvidia*[0-9l]")
def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "mount namespace")
checked(libc.unshare(0x20000))
checked(libc.mount(None, b"/", None, 0x40000 | 0x4000, None))
for node in nodes:
    checked(libc.mount(b"/dev/null", node.encode(), None, 0x1000, None))
gpu.hide()
import torch
# What libraries ask by the way, whatever they make of the answer: CUDA's runtime and torch remember the first one.
one = torch.ones(1)
for ask in (torch.cuda.is_current_stream_capturing, torch._C._cuda_getDeviceCount, torch.cuda.init, one.pin_memory, one.cuda):
    try:
        ask()
    except (RuntimeError, AssertionError):
        pass
assert not torch.cuda.is_available(), "a hidden GPU is available"
assert torch.cuda.device_count() == 0 and gpu.device() == "cpu"
assert gpu.initialised() is None
model = torch.nn.Linear(64, 64)
x = torch.ones(1, 64)
want = model(x)
for node in nodes:
    checked(libc.umount2(node.encode(), 0))
gpu.reveal()
assert torch.cuda.is_available(), "the GPU is not available after the restore"
assert torch.cuda.device_count() == torch._C._cuda_getDeviceCount() > 0 and gpu.device() == "cuda"
got = model.to(gpu.device())(x.to(gpu.device())).cpu()
assert torch.allclose(got, want, atol=1e-4), (got, want)
assert len(torch.cuda.default_generators) == torch.cuda.device_count()
assert one.pin_memory().is_pinned()
print(torch.__version__, torch.cuda.get_device_name(0))
"""


def test_torch_tells_the_truth_after_it_was_asked_without_a_gpu() -> None:
    if not glob.glob("/dev/nvidia0"):
        pytest.skip("needs an NVIDIA GPU: /dev/nvidia0 is missing")
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch with CUDA")
    ran = subprocess.run([sys.executable, "-c", SCRIPT.format(package=str(PACKAGE))], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
