"""Torch's threads on the CPU: as many as there are cores that other processes leave free.

Threads wait for each other at every operation, and spin meanwhile: where two of them share two cores with one busy
process, they do half the work of one thread (LOG.md).
"""

import contextlib
import math
from collections.abc import Callable, Iterator

from classifier.runtime.cpu import OtherLoad, affine_cores, available_cores


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Compute with this many threads; None: as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def use_free_cores(
    load: OtherLoad, say: Callable[[str], None], setting: str, *, threads: int | None = None
) -> Iterator[None]:
    """Compute with as many threads as cores are free now, and say so in a line if those are not all.

    load: since a moment ago. setting: with which the user may choose, for the line. threads: what the user or an
    earlier process has chosen.
    """
    if threads is None:
        threads, line = choose_threads(load, setting)
        if line:
            say(line)
    with use_threads(threads):
        yield


def choose_threads(load: OtherLoad, setting: str) -> tuple[int, str | None]:
    """Choose a number of threads, and a line on it if they are fewer than this process may have: see `use_free_cores`.

    The user's OMP_NUM_THREADS wins, which Ray and torchrun set for their workers; nor are there more threads than
    torch has.
    """
    import torch

    threads = torch.get_num_threads()
    if "OMP_NUM_THREADS : [not set]" not in torch.__config__.parallel_info():
        return threads, None
    return limit_to_free_cores(threads, load, setting)


def limit_to_free_cores(threads: int, load: OtherLoad, setting: str) -> tuple[int, str | None]:
    """Return how many of these threads have a free core, and a line on it if they are fewer: see `choose_threads`."""
    threads, cores = min(threads, available_cores()), affine_cores()
    busy = load.busy_cores() if threads > 1 else 0.0
    chosen = min(threads, count_free_cores(cores, busy))
    if chosen == threads:
        return chosen, None
    plural = "" if chosen == 1 else "s"
    return chosen, (
        f"other processes keep {busy:.1f} of {cores} cores busy: using {chosen} thread{plural} "
        f"({setting} sets the number)"
    )


def count_free_cores(cores: int, busy: float) -> int:
    """Return how many cores are free, at least one. busy: cores that other processes use; up to half a core is none."""
    return max(1, math.floor(cores - busy + 0.5))
