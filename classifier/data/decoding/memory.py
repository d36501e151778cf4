"""The memory that decoding takes: what one process may take, and a budget for the large images of several."""

import contextlib
import os
import threading
from collections.abc import Iterator

from classifier.runtime.cpu import available_cores

BYTES_PER_PIXEL = 24
"""The most that a decoder takes for a pixel, with its conversion; usually 8 to 12."""
BASE_BYTES, BYTES_PER_CORE = 1 << 28, 1 << 24
"""Besides: for the bytes of the file, and for each thread of a decoder."""
MEMORY_SHARE = 1 / 16
"""Of this machine's memory, for large images that are decoded at the same time."""


class MemoryBudget:
    """Lets so many pixels be decoded at the same time, and one image however large it is. Shared by threads."""

    def __init__(self, pixels: int | None = None) -> None:
        """pixels: a share of this machine's memory, if it is None."""
        self.pixels = pixels or max(1, int(MEMORY_SHARE * _physical_bytes() / (BYTES_PER_PIXEL / 2)))
        self._used, self._changed = 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many pixels."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + pixels <= self.pixels)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


def limit_own_memory(max_pixels: int) -> None:
    """Let this process take no more memory than an image of `max_pixels` needs. Only Linux can."""
    with contextlib.suppress(ImportError, OSError, ValueError, StopIteration):
        import resource

        with open("/proc/self/status") as status:
            kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
        limit = 1024 * kilobytes + BASE_BYTES + BYTES_PER_CORE * available_cores() + BYTES_PER_PIXEL * max_pixels
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system knows
        return 8 << 30
