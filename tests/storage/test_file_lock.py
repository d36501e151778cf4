"""A lock has one owner, which others can name, and ends with its process and no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import Timeout

from classifier.storage.file_lock import is_locked, open_lock, read_owner

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from classifier.storage.file_lock import open_lock
lock = open_lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""
# How earlier versions of this package locked.
HOLD_AS_BEFORE = """
import fcntl, os, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
file.truncate(0)
file.write(str(os.getpid()))
file.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.mark.parametrize("code", [HOLD, HOLD_AS_BEFORE], ids=["this", "earlier"])
def test_a_killed_owner_is_named_until_then_and_released(path: Path, code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(path)
        with pytest.raises(Timeout):
            open_lock(path).acquire(blocking=False)
        assert read_owner(path) == f"process {process.pid}"
        process.kill()
    assert not is_locked(path)
    with open_lock(path):
        assert read_owner(path) == f"process {os.getpid()}"


def test_a_look_neither_creates_nor_takes_it(path: Path) -> None:
    assert not is_locked(path)
    assert not path.exists()
    lock = open_lock(path)
    with lock:
        assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)
    lock.acquire(blocking=False)
    assert is_locked(path)
    lock.release()


def test_a_lock_file_left_by_an_earlier_version_does_not_block(path: Path) -> None:
    path.write_text("1234567890")
    with open_lock(path):
        assert read_owner(path) == f"process {os.getpid()}"


def test_an_unknown_owner_has_a_name_too(path: Path) -> None:
    assert read_owner(path) == "another process"
    path.write_text("")
    assert read_owner(path) == "another process"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_holds_nor_releases_it(path: Path) -> None:
    lock = open_lock(path)
    lock.acquire()
    child = os.fork()
    if not child:
        lock.release()
        time.sleep(60)
        os._exit(0)
    try:
        time.sleep(0.2)
        assert is_locked(path)  # the child's release changed nothing
        lock.release()
        assert not is_locked(path)  # though the child lives
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_one_thread_may_release_what_another_acquired(path: Path) -> None:
    import threading

    lock = open_lock(path)
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    assert is_locked(path)
    lock.release()
    assert not is_locked(path)
