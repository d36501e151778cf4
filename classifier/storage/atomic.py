"""Files that are whole or absent: atomic writing, checksums, and the format version that every document carries."""

import contextlib
import errno
import hashlib
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
# A full disk or a storage that is away is waited for so long, in seconds, and asked again after these pauses.
RETRY_SECONDS = 180.0
RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
# Nobody mends these by waiting.
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
    """`write`'s value; where it raises OSError it is tried again for three minutes, and the wait is logged.

    RunError, which names `what` and the mend, when the time is up, or at once where waiting cannot help.
    """
    began, tried = time.monotonic(), 0
    while True:
        try:
            return write()
        except OSError as error:
            reason, left = error.strerror or str(error), began + RETRY_SECONDS - time.monotonic()
            if error.errno in PERMANENT_ERRORS or left <= 0:
                raise RunError(
                    f"{target} cannot be written ({reason}): mend that, then go on with the run by --resume"
                ) from None
            logger.warning("%s cannot be written (%s): trying again for %.0f s", target, reason, left)
            time.sleep(min(RETRY_PAUSES[min(tried, len(RETRY_PAUSES) - 1)], left))
            tried += 1


def check_format_version(document: dict[str, Any], path: Path, known: int) -> None:
    """RunError if `document` was written by a newer version, in words that name the file and both numbers."""
    version = document.get("format_version")
    if version != known:
        raise RunError(f"{path}: format_version is {version!r}, this version reads {known}; update the package")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        fsync(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def write_tensors(tensors: dict[str, Any], path: Path, **metadata: str) -> None:
    """Write a safetensors file onto the disk; OSError, whatever the library makes of it, where that cannot be done."""
    import safetensors
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata or None)
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error
    fsync(path)


def file_sha256(path: Path) -> str:
    """The checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Have the disk hold what was written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def fsync_in_background(path: Path, every: float = 0.2) -> Iterator[None]:
    """While the context is used, have the disk take what is written to a file: little is left for a last `flush`.

    OSErrors are left to that.
    """
    over = threading.Event()

    def work() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(every):
                fsync(path)

    thread = threading.Thread(target=work, name="flushing", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
