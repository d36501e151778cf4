"""This process on the CPU: its memory allocator, the memory that it took, its cores, and other work on them."""

import contextlib
import ctypes
import functools
import math
import os
import sys
import time
from pathlib import Path

# mallopt's parameters: the maximum number of blocks that glibc maps one by one, and how much free memory at the end of
# the heap it keeps.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_KEPT_BYTES, _HUGE_PAGE_BYTES, _MADV_HUGEPAGE = 1 << 30, 1 << 21, 14
# The load of other processes is averaged over at least so many seconds, of which a spike of 0.1 s is a small part, and
# looked at more closely from this many cores on.
LOAD_SECONDS, MIN_BUSY_CORES = 0.2, 0.25
CGROUP = Path("/sys/fs/cgroup")


def setup(device_type: str = "cpu") -> None:
    """Set up the allocator of this process for tensors on the CPU; for other device types do nothing.

    It changes the whole process, so nothing does it at import: the functions with which training, inference,
    measuring and decoding begin call it. Calls after the first have no effect.
    """
    if device_type == "cpu":
        _keep_freed_memory()


@functools.cache
def _keep_freed_memory() -> None:
    """Make glibc reuse freed memory, and ask Linux for huge pages; without glibc do nothing.

    By default glibc returns large blocks to the kernel as soon as they are freed, and the kernel zeroes their pages
    again in the next step: a seventh of the step time of small models (LOG.md). Up to 1 GiB is kept.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES)
        # Allocate a block, mark it for huge pages and free it untouched: later allocations are served from it.
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if block := libc.malloc(_KEPT_BYTES):
            start = -(-block // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
            libc.madvise(start, _KEPT_BYTES - _HUGE_PAGE_BYTES, _MADV_HUGEPAGE)
            libc.free(block)


def available_cores() -> int:
    """Return the number of CPU cores that this process may use: by its affinity, and by its container's limit."""
    return max(1, math.ceil(min(affine_cores(), cgroup_limit(CGROUP))))


def usable_threads() -> int:
    """Return how many threads compute fastest: one per available core, and no two on one physical core."""
    import psutil

    cores = available_cores()
    return min(cores, psutil.cpu_count(logical=False) or cores)


def affine_cores() -> int:
    """Return the number of CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_limit(folder: Path) -> float:
    """Return how many cores' time the control group mounted at `folder` may use; infinity without a limit."""
    with contextlib.suppress(OSError, ValueError):  # version 2: "max 100000" without a limit
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):  # version 1: -1 without a limit
        quota, period = (int((folder / "cpu" / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else math.inf
    return math.inf


class OtherLoad:
    """Other work on this process's cores, from now on: of other programs, and of other guests of a virtual machine."""

    def __init__(self) -> None:
        self._began = _busy_seconds()

    def busy_cores(self) -> float:
        """Return how many cores other work has kept busy on average.

        Waits LOAD_SECONDS, and returns the load meanwhile, if the time until now was shorter, or if there was a load
        while this process used more than a core itself: then the others got less than they asked for.
        """
        wall, busy, own = self._seconds()
        if wall < LOAD_SECONDS or (own > wall and busy - own > MIN_BUSY_CORES * wall):
            waiting = OtherLoad()
            time.sleep(LOAD_SECONDS)
            wall, busy, own = waiting._seconds()
        return max(0.0, (busy - own) / wall)

    def lost_share(self, threads: int) -> float:
        """Return the share of their time, from 0 to 1, that `threads` busy threads of this process lost to it."""
        wall, busy, own = self._seconds()
        return compute_lost_share(wall, busy, own, threads=threads, cores=affine_cores())

    def _seconds(self) -> tuple[float, ...]:
        """Return `_busy_seconds` since the start."""
        return tuple(end - start for start, end in zip(self._began, _busy_seconds(), strict=True))


def compute_lost_share(wall: float, busy: float, own: float, *, threads: int, cores: int) -> float:
    """Return what other work took of the cores' time, but no more than this process lacked.

    wall: seconds; busy: seconds that the cores were; own: of these, the seconds of this process. Where it had a core
    for each of its threads, it has lost nothing, however busy the others were.
    """
    if wall <= 0:
        return 0.0
    return min(1.0, max(0.0, min((busy - own) / (wall * cores), 1 - own / (wall * min(threads, cores)))))


def _busy_seconds() -> tuple[float, float, float]:
    """Return (wall time, time that this process's cores were busy, time of this process and its children on them)."""
    import psutil

    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [times for n, times in enumerate(cores) if n in os.sched_getaffinity(0)]
    waiting = ("idle", "iowait", "guest", "guest_nice")  # guests are part of user and nice
    busy = sum(seconds for times in cores for name, seconds in times._asdict().items() if name not in waiting)
    own = time.process_time() + sum(psutil.Process().cpu_times()[2:4])  # of children that have ended
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            own += sum(child.cpu_times()[:4])
    return time.perf_counter(), busy, own


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has had so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
