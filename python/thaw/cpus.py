"""The CPUs that a process may use, and the thread pools that have as many threads: both can be others after a restore."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from typing import Iterable

# How many CPUs there were when the memory was frozen; 0 if it was not.
_frozen_with = 0

# Functions that set the number of threads, by a part of their library's file name.
_SETTERS = {
    "libgomp": ("omp_set_num_threads",),
    "libomp": ("omp_set_num_threads",),
    "libiomp5": ("omp_set_num_threads",),
    "openblas": (
        "openblas_set_num_threads",
        "openblas_set_num_threads64_",
        "scipy_openblas_set_num_threads",
        "scipy_openblas_set_num_threads64_",
    ),
    "libmkl_rt": ("MKL_Set_Num_Threads",),
}


def available(quota_file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """How many CPUs this process can use: those that it may run on, and not more than its control group has time for."""
    count = len(os.sched_getaffinity(0))
    try:
        with open(quota_file) as file:
            quota, period = file.read().split()
        count = min(count, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        # No control group, or no limit ("max").
        pass
    return count


def remember() -> None:
    """Notes the number of CPUs before the freeze."""
    global _frozen_with
    _frozen_with = available()


def follow(cpus: Iterable[int] | None) -> None:
    """Lets all threads run on these CPUs (None: as they are), and gives thread pools the number that there is now.

    A number of threads that the author has chosen stays, unless there are fewer CPUs.
    """
    if cpus is not None:
        _pin(set(cpus))
    now = available()
    if _frozen_with in (0, now):
        return
    # torch sets OpenMP's number, too, so it comes last.
    _native(now)
    torch = sys.modules.get("torch")
    if torch is not None:
        threads = torch.get_num_threads()
        torch.set_num_threads(now if threads == _frozen_with else min(threads, now))


def _pin(cpus: set[int]) -> None:
    for tid in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(tid), cpus)
        except ProcessLookupError:
            pass
        except OSError as err:
            print(f"thaw: cannot run on the CPUs {sorted(cpus)}: {err}", file=sys.stderr)
            return


def _native(now: int) -> None:
    """Tells the native libraries in memory, unless the environment says how many threads they are to have."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line}
    for file in files:
        for part, names in _SETTERS.items():
            if part not in os.path.basename(file):
                continue
            try:
                # Only what is loaded already: RTLD_NOLOAD.
                library = ctypes.CDLL(file, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            except OSError:
                continue
            for name in names:
                function = getattr(library, name, None)
                if function is not None:
                    function(now)
