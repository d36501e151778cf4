"""A process that works for another one, and ends with it."""

import multiprocessing
import os
import signal
import threading


def become_helper(niceness: int) -> None:
    """Leave Ctrl-C to the parent, end when it ends, and let it go first. Called by a process of multiprocessing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(niceness)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
