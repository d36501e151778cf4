"""A lock that one process holds at a time. The system releases it when the process ends, however it ends."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

logger = logging.getLogger(__name__)


def open_lock(path: Path) -> FileLock:
    """Return a lock on a file, not acquired yet; while it is held, `read_owner` names its owner.

    A forked child does not hold its parent's lock.
    """
    return FileLock(path, thread_local=False, on_acquired=_write_owner)


@contextlib.contextmanager
def hold_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock on a file. While another process does, a warning says what it is doing. OSError if that fails."""
    lock = open_lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning("%s is %s: waiting for it", read_owner(path), what)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_owner(path: Path) -> str:
    """Return the name of a held lock's owner, for messages: "process 4321", or "another process" if it is unknown."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(1 if sys.platform == "win32" else 0)  # Windows lets no other process read the locked first byte
        if owner := file.read().decode().strip():
            return f"process {owner}"
    return "another process"


def is_locked(path: Path) -> bool:
    """Does any process hold the lock on this file? False if the file is missing, or cannot be read.

    It takes the lock for an instant where it is free, so `acquire` with a timeout if you must not be refused for that.
    """
    try:
        with path.open("rb") as file:
            return not lock_descriptor(file.fileno(), blocking=False)  # closing the file releases it
    except OSError:
        return False


def _write_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f" {os.getpid()}".encode())
