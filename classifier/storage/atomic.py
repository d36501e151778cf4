"""Atomic and durable files, retries, checksums, and format versions."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from classifier.errors import RunError

T = TypeVar("T")
logger = logging.getLogger(__name__)
# How long to retry when a disk is full or storage is unreachable, and the pauses in between, in seconds.
RETRY_SECONDS = 180.0
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
# Retrying does not help against these.
PERMANENT_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EROFS,
    errno.ENAMETOOLONG,
)


def retry_io(write: Callable[[], T], target: Path | str) -> T:
    """Call `write` and return its value; if it raises OSError, log that and retry for three minutes.

    RunError, naming `target` and the fix, when the time is up, or at once if retrying cannot help.
    """
    start, attempts = time.monotonic(), 0
    while True:
        try:
            return write()
        except OSError as error:
            reason, left = error.strerror or str(error), start + RETRY_SECONDS - time.monotonic()
            if error.errno in PERMANENT_ERRORS or left <= 0:
                raise RunError(
                    f"{target} cannot be written ({reason}): fix that, then continue the run with --resume"
                ) from None
            logger.warning("%s cannot be written (%s): retrying for %.0f s", target, reason, left)
            time.sleep(min(RETRY_PAUSES[min(attempts, len(RETRY_PAUSES) - 1)], left))
            attempts += 1


def check_format_version(document: dict[str, Any], path: Path, known: int) -> None:
    """RunError, naming the file and both versions, unless `document` has the format version `known`."""
    version = document.get("format_version")
    if version != known:
        raise RunError(
            f"{path}: format_version is {repr(version)[:60]}, but this version reads {known}; update the package"
        )


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that readers, even after a crash, see the old content or the new, never a part of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        fsync(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_tensors(tensors: dict[str, Any], path: Path, **metadata: str) -> None:
    """Write a safetensors file and sync it to disk. OSError if that fails, whatever the library raises."""
    import safetensors
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata or None)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error
    if len(metadata) > 1:
        _sort_metadata(path)
    fsync(path)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header of a safetensors file: the library writes them in another order each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # as long as it was
            file.seek(8)
            file.write(text.ljust(length))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Sync a file to disk."""
    with path.open("r+b") as file:  # Windows syncs only what may be written
        os.fsync(file.fileno())


@contextlib.contextmanager
def fsync_in_background(path: Path, seconds: float = 0.2) -> Iterator[None]:
    """Sync a file to disk repeatedly while the context is active, so that little is left for a final `fsync`.

    OSErrors are left for that one to raise.
    """
    stopped = threading.Event()

    def work() -> None:
        with contextlib.suppress(OSError):
            while not stopped.wait(seconds):
                fsync(path)

    thread = threading.Thread(target=work, name="fsync", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
