"""This process on the CPU: its memory allocator, the memory that it took, and its cores."""

import contextlib
import ctypes
import functools
import os
import sys

# mallopt's parameters: the maximum number of blocks that glibc maps one by one, and how much free memory at the end of
# the heap it keeps.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_KEPT_BYTES, _HUGE_PAGE_BYTES, _MADV_HUGEPAGE = 1 << 30, 1 << 21, 14


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
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has had so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
