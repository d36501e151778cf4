"""Work on many pictures in threads of this process, none of which another one waits for."""

import math
import threading
import time
from collections.abc import Callable, Sequence

from classifier.data.decoding import decode
from classifier.runtime.cpu import available_cores

LOOK_EVERY = 1.0
"""Seconds after which a thread that has not ended is looked at."""


def in_threads(
    work: Callable[[int], None],
    indices: Sequence[int],
    seconds: float = math.inf,
    late: Callable[[int], None] = lambda _: None,
) -> None:
    """Call `work` on every index, on all cores that this process may use; decoders leave Python's lock alone.

    What is not done after so many seconds is told to `late`; its thread, which cannot be ended, is left behind.
    """
    places, lock, over = iter(indices), threading.Lock(), threading.Event()
    at_work: dict[threading.Thread, tuple[int, float]] = {}
    errors: list[BaseException] = []

    def run() -> None:
        own = threading.current_thread()
        try:
            while not over.is_set():
                with lock:
                    index = next(places, None)
                    if index is None:
                        return
                    at_work[own] = index, time.monotonic()
                work(index)
                with lock:
                    if at_work.pop(own, None) is None:  # it was late
                        return
        except BaseException as error:
            errors.append(error)
            over.set()

    def start() -> threading.Thread:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    with decode.quiet():
        threads = [start() for _ in range(min(available_cores(), max(1, len(indices))))]
        try:
            while threads and not errors:
                threads[0].join(min(seconds, LOOK_EVERY))
                now = time.monotonic()
                with lock:
                    behind = {thread: index for thread, (index, began) in at_work.items() if now - began > seconds}
                    for thread in behind:
                        del at_work[thread]
                for index in behind.values():
                    late(index)
                threads = [
                    start() if thread in behind else thread
                    for thread in threads
                    if thread in behind or thread.is_alive()
                ]
        finally:  # Ctrl-C, or an error in one thread: the others need not finish
            over.set()
    if errors:
        raise errors[0]
