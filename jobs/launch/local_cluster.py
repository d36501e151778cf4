"""Ray clusters of this machine alone: a folder for each, which only its user can enter, and what a killed one left.

In Ray's own folder, /tmp/ray, every user of the machine can write, and sessions stay there for ever. Here the next verb
of the same user removes what a killed one has left: its folder, and those of its processes that have outlived it.
"""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import psutil
from filelock import FileLock

from classifier.errors import ConfigError
from classifier.storage.file_lock import is_locked, open_lock

# Held in a session's folder as long as its driver lives. The system releases it, however the driver ends: unlike a
# process number in a file, it is right about processes of other containers and after the clock was set, too.
LOCK = "driver.lock"
# Ray's sockets have up to 88 more characters than the folder for temporary files, of the 107 that Linux allows.
MAX_FOLDER_LENGTH = 19
# Seconds to wait for the end of killed processes, which may still write into the folder that is removed.
KILL_SECONDS = 3.0
_held_locks: list[FileLock] = []  # until this process ends


def temporary_folder() -> Path:
    """Where Ray keeps its files: RAY_TMPDIR, or else the system's folder for temporary files."""
    if named := os.environ.get("RAY_TMPDIR"):
        return Path(named)
    if sys.platform == "win32":
        return Path(tempfile.gettempdir())
    return Path(os.environ.get("TMPDIR", "/tmp") if sys.platform == "linux" else "/tmp")


def open_session() -> Path:
    """Create the folder of a new session, which ends with this process; remove those that have ended.

    ConfigError if another user holds the place where they lie.
    """
    home = _open_home()
    with open_lock(home / "sessions.lock"):  # so that no folder is seen before its lock is held
        for folder in [path for path in home.iterdir() if path.is_dir() and not is_locked(path / LOCK)]:
            _kill_processes(folder)
            shutil.rmtree(folder, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="", dir=home))
        lock = open_lock(folder / LOCK)
        lock.acquire()
        _held_locks.append(lock)
    return folder


def find_session() -> Path | None:
    """The folder of the session that this process has opened."""
    return Path(_held_locks[-1].lock_file).parent if _held_locks else None


def _open_home() -> Path:
    """The folder of this user's sessions, in which nobody else can read or write."""
    parent = temporary_folder()
    if "RAY_TMPDIR" not in os.environ and sys.platform != "win32" and len(str(parent)) > MAX_FOLDER_LENGTH:
        parent = Path("/tmp")
    if not hasattr(os, "getuid"):  # Windows, where it is the user's own already
        home = parent / "ray-sessions"
        home.mkdir(parents=True, exist_ok=True)
        return home
    home = parent / f"ray-{os.getuid()}"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = home.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            home.chmod(0o700)
            return home
    except OSError as error:
        raise ConfigError(f"{home} cannot be created ({error}): set RAY_TMPDIR to a folder of yours") from None
    raise ConfigError(f"{home} belongs to another user: set RAY_TMPDIR to a folder of yours")


def _kill_processes(folder: Path) -> None:
    """Kill what is left of a session whose driver has ended: processes of this user that write its logs."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.pid != os.getpid() and _is_ours(process) and _writes_into(process, folder):
                process.kill()  # psutil compares the time it was started: a number may have been given away again
                left.append(process)
    psutil.wait_procs(left, timeout=KILL_SECONDS)


def _is_ours(process: psutil.Process) -> bool:
    return not hasattr(os, "getuid") or process.uids().real == os.getuid()


def _writes_into(process: psutil.Process, folder: Path) -> bool:
    """Whether it has a file below this folder open: for writing, where the system tells, as someone may read a log."""
    files = [file for file in process.open_files() if Path(file.path).is_relative_to(folder)]
    return any(getattr(file, "mode", "w") != "r" for file in files)


def find_address() -> str | None:
    """The address of the cluster that this user, or root, last started on this machine by `ray start`.

    Everyone may write where Ray notes it: a file of another user would lead to their cluster, with this user's token.
    """
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(temporary_folder() / "ray" / "ray_current_cluster", flags), "rb") as file:
            found = os.fstat(file.fileno())
            is_trusted = not hasattr(os, "getuid") or found.st_uid in (0, os.getuid())
            text = file.read(256) if stat.S_ISREG(found.st_mode) and is_trusted else b""
    except OSError:
        return None
    return text.decode(errors="replace").strip() or None
