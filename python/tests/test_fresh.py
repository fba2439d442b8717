"""What a restore renews besides randomness: CPUs, thread pools, GPUs, host names, the environment."""

from __future__ import annotations

import os
import platform
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any, Iterator

import pytest

from conftest import Apps
from thaw import boot, cpus, fresh, gpu


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    affinity = os.sched_getaffinity(0)
    before = dict(os.environ)
    yield
    os.sched_setaffinity(0, affinity)
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
    cpus._frozen_with = 0
    boot.set_boot(boot.Boot())


class Torch(ModuleType):
    """As much of torch as the package touches, with a GPU that is there or not."""

    def __init__(self, threads: int = 2) -> None:
        super().__init__("torch")
        self.threads = threads
        self.gpus = 0
        self.cuda = ModuleType("torch.cuda")
        self.cuda._cached_device_count = None  # type: ignore[attr-defined]
        self.cuda.is_initialized = lambda: False  # type: ignore[attr-defined]
        self.cuda.is_available = self._is_available  # type: ignore[attr-defined]

    def get_num_threads(self) -> int:
        return self.threads

    def set_num_threads(self, number: int) -> None:
        self.threads = number

    def _is_available(self) -> bool:
        # As torch does it: it remembers the first answer.
        cuda: Any = self.cuda
        if cuda._cached_device_count is None:
            cuda._cached_device_count = 0 if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else self.gpus
        return bool(cuda._cached_device_count)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Torch:
    fake = Torch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setitem(sys.modules, "torch.cuda", fake.cuda)
    return fake


def test_a_gpu_that_comes_with_the_restore_is_seen_though_it_was_asked_for_before(torch: Torch) -> None:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    torch.gpus = 1
    gpu.hide()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert gpu.device() == "cpu"
    fresh.set_environment({})
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert gpu.device() == "cuda"


def test_the_authors_choice_of_gpus_comes_back_and_the_hosts_goes_over_it(torch: Torch) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "1"
    gpu.hide()
    gpu.hide()
    gpu.reveal()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    gpu.hide()
    fresh.set_environment({"CUDA_VISIBLE_DEVICES": "0"})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_without_torch_there_is_a_device_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert gpu.device() == "cpu"
    gpu.forget()
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    "threads, then, now, after",
    [
        (4, 4, 8, 8),
        (4, 4, 2, 2),
        (1, 4, 8, 1),
        (3, 4, 2, 2),
        (4, 4, 4, 4),
    ],
)
def test_the_number_of_threads_follows_the_cpus_unless_the_author_chose_it(
    threads: int, then: int, now: int, after: int, torch: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.threads = threads
    monkeypatch.setattr(cpus, "available", lambda: then)
    cpus.remember()
    monkeypatch.setattr(cpus, "available", lambda: now)
    cpus.follow(None)
    assert torch.threads == after


def test_all_threads_get_the_cpus_that_the_host_names() -> None:
    first = min(os.sched_getaffinity(0))
    cpus.follow([first])
    assert {frozenset(os.sched_getaffinity(int(tid))) for tid in os.listdir("/proc/self/task")} == {frozenset({first})}


def test_cpus_that_are_not_there_are_told_and_nothing_fails(capfd: pytest.CaptureFixture[str]) -> None:
    cpus.follow([1 << 14])
    assert "cannot run on the CPUs [16384]" in capfd.readouterr().err


@pytest.mark.parametrize("quota, most", [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 1 << 20), ("nonsense", 1 << 20)])
def test_a_control_groups_time_limits_the_number(quota: str, most: int, tmp_path: Any) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert cpus.available(str(file)) == min(len(os.sched_getaffinity(0)), most)


def test_what_was_learnt_of_the_host_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "_uname_cache", "old")
    boto3 = SimpleNamespace(DEFAULT_SESSION="old")
    monkeypatch.setitem(sys.modules, "boto3", boto3)
    os.environ["HOSTNAME"] = "old"
    fresh.refresh("0" * 32, {}, "new", None, reseed=False)
    assert platform.node() != "old" and platform.uname().node == os.uname().nodename
    assert boto3.DEFAULT_SESSION is None
    assert os.environ["HOSTNAME"] == "new"


def test_the_time_zone_follows_the_environment() -> None:
    try:
        fresh.set_environment({"TZ": "UTC-5"})
        assert time.timezone == -5 * 3600
        fresh.set_environment({"TZ": "UTC+3"})
        assert time.timezone == 3 * 3600
    finally:
        os.environ.pop("TZ", None)
        time.tzset()


def test_the_age_of_a_snapshot() -> None:
    assert boot.snapshot_age() is None
    boot.set_boot(boot.Boot(restored=True, frozen_at=time.time() - 100))
    age = boot.snapshot_age()
    assert age is not None and age >= 100
    # The clock of the host that froze it may be ahead.
    boot.set_boot(boot.Boot(restored=True, frozen_at=time.time() + 100))
    assert boot.snapshot_age() == 0


APP = """
import os, sys
import thaw
app = thaw.App("fresh")

@app.cls(enable_memory_snapshot=True)
class Thing:
    @thaw.enter(snap=True)
    def load(self): self.before = os.environ.get("CUDA_VISIBLE_DEVICES")
    @thaw.method()
    def call(self): return [self.before, os.environ.get("CUDA_VISIBLE_DEVICES"), [m for m in ("numpy", "torch", "uuid") if m in sys.modules]]
"""


def test_no_gpu_before_the_start_and_no_library_that_was_not_there(apps: Apps) -> None:
    host = apps.host(APP, CUDA_VISIBLE_DEVICES="0")
    host.start(restored=True)
    assert host.value("call") == ["", "0", []]


@pytest.mark.parametrize("chosen, seen", [("1", "1"), ("", ""), (None, None)])
def test_the_authors_environment_says_which_gpus_are_seen_after_the_freeze(chosen: str | None, seen: str | None, apps: Apps) -> None:
    host = apps.host(APP, CUDA_VISIBLE_DEVICES="0")
    host.load(env={"CUDA_VISIBLE_DEVICES": chosen})
    host.ask("prepare")
    host.boot(restored=True)
    assert host.value("call")[:2] == ["", seen]


def test_the_time_zone_of_the_authors_environment_is_there_from_the_import_on(apps: Apps) -> None:
    host = apps.host(
        """
        import time
        import thaw
        app = thaw.App("fresh")
        OFFSET = time.localtime(0).tm_gmtoff

        @app.cls()
        class Thing:
            @thaw.method()
            def call(self): return OFFSET
        """,
        TZ="UTC",
    )
    host.load(env={"TZ": "UTC-5"})
    host.boot()
    assert host.value("call") == 5 * 3600
