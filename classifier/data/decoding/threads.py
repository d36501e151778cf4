"""Process many images in threads of this process; one that hangs does not hold up the others."""

import math
import threading
import time
from collections.abc import Callable, Sequence

from classifier.data.decoding.pillow_settings import pillow_limits_off
from classifier.runtime.cpu import available_cores

POLL_SECONDS = 1.0
"""Time between two looks at the threads."""


def run_in_threads(
    work: Callable[[int], None],
    indices: Sequence[int],
    seconds: float = math.inf,
    on_timeout: Callable[[int], None] = lambda _: None,
) -> None:
    """Call `work` on every index, on all cores that this process may use; decoders release the GIL.

    After `seconds` an index is passed to `on_timeout`, and its thread, which cannot be killed, is abandoned.
    """
    queue, lock, stop = iter(indices), threading.Lock(), threading.Event()
    running: dict[threading.Thread, tuple[int, float]] = {}
    errors: list[BaseException] = []

    def run() -> None:
        own = threading.current_thread()
        try:
            while not stop.is_set():
                with lock:
                    index = next(queue, None)
                    if index is None:
                        return
                    running[own] = index, time.monotonic()
                work(index)
                with lock:
                    if running.pop(own, None) is None:  # it was abandoned
                        return
        except BaseException as error:
            errors.append(error)
            stop.set()

    def start() -> threading.Thread:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    with pillow_limits_off():
        threads = [start() for _ in range(min(available_cores(), max(1, len(indices))))]
        try:
            while threads and not errors:
                threads[0].join(min(seconds, POLL_SECONDS))
                now = time.monotonic()
                with lock:
                    late = {thread: index for thread, (index, began) in running.items() if now - began > seconds}
                    for thread in late:
                        del running[thread]
                for index in late.values():
                    on_timeout(index)
                threads = [
                    start() if thread in late else thread for thread in threads if thread in late or thread.is_alive()
                ]
        finally:  # Ctrl-C, or an error in one thread: the others need not finish
            stop.set()
    if errors:
        raise errors[0]
