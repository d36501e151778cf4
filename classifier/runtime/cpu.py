"""The memory that tensors are made of, on a CPU: kept for the next step instead of given back after each."""

import contextlib
import ctypes
import functools
import os

# mallopt's names for how many blocks glibc maps one by one, and for how much may lie idle at the heap's end.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_IDLE_BYTES, _HUGE_PAGE, _MADV_HUGEPAGE = 1 << 30, 1 << 21, 14


@functools.cache
def keep_freed_memory() -> None:
    """Ask glibc to use freed memory again, and Linux for large pages; elsewhere nothing happens.

    Large blocks go back to the kernel as they are freed, and it fills them with zeros, page by page, when the next step
    asks again: a seventh of a step's time for small models (LOG.md). Up to a gigabyte stays.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _IDLE_BYTES)
        # A block that is asked for, marked and freed, without being touched: memory is taken from there from now on.
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if block := libc.malloc(_IDLE_BYTES):
            start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
            libc.madvise(start, _IDLE_BYTES - _HUGE_PAGE, _MADV_HUGEPAGE)
            libc.free(block)


def available_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
