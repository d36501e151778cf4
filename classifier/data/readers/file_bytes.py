"""An image file, wherever it is stored: its bytes, their digest, and the identity of its state."""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from classifier.data.decoding import decode

SETTLE_SECONDS = 2.0
"""A file changed more recently than this may change again with the same modification time."""

UNREADABLE = "it cannot be read"

PackedFile = tuple[object, Callable[[str, int, int], "File"], str, int, int]
"""A key for the container, a function that recreates the file from a name and two numbers, and those three."""


class VirtualFile(Protocol):
    """An image file inside another file, or in remote storage."""

    def read_bytes(self) -> bytes:
        """Read the whole file. OSError if it cannot be read."""
        ...

    def identity(self) -> bytes | None:
        """Return 16 bytes that change with the file and its location; None if its state is unknown."""
        ...

    def pack(self) -> PackedFile:
        """Return everything needed to recreate it, in a few values."""
        ...


File = Path | VirtualFile
"""An image file, wherever it is stored."""


def read_image_bytes(file: File, max_bytes: int) -> bytes:
    """Read an image file. DecodeError if it cannot be read, is larger than max_bytes, or is no regular file."""
    try:
        if isinstance(file, Path):
            size, content = _read_regular_file(file, max_bytes)
        else:
            size = getattr(file, "size", None) or 0
            content = file.read_bytes() if size <= max_bytes else b""
        if max(size, len(content)) > max_bytes:
            size = max(size, len(content))
            raise decode.DecodeError(f"its {size:,} bytes are more than data.max_bytes {max_bytes:,}")
        return content
    except OSError as error:
        raise decode.DecodeError(f"{UNREADABLE} ({error.strerror or error})") from None


def may_pass(reason: str) -> bool:
    """May an image that could not be used for this reason be read the next time, as storage then answers?"""
    return reason.startswith(UNREADABLE)


def _read_regular_file(path: Path, max_bytes: int) -> tuple[int, bytes]:
    """Return a file's size and content; no more than max_bytes + 1 of it are read."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:  # O_NONBLOCK: opening a pipe would wait for its writer
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise decode.DecodeError("it is no regular file")
        if about.st_size > max_bytes:
            return about.st_size, b""
        with open(file, "rb", closefd=False) as stream:
            content = stream.read(about.st_size + 1)
            if len(content) > about.st_size:  # it grows, or is a file of the kernel, which have no size
                content += stream.read(max_bytes + 1 - len(content))
        return about.st_size, content
    finally:
        os.close(file)


def compute_digest(content: Any) -> bytes:
    """Return 16 bytes that are equal for two contents (bytes, or arrays of one shape) only if the contents are."""
    return hashlib.blake2b(content, digest_size=16).digest()


def file_identity(path: Path) -> bytes | None:
    """Return 16 bytes that identify a file and its state: path, size, time of change, inode.

    None if it has just changed, or does not exist."""
    try:
        about = path.stat()
    except OSError:
        return None
    if time.time() - max(about.st_mtime, about.st_ctime) < SETTLE_SECONDS:
        return None
    return _hash(os.path.abspath(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


def derive_identity(container: bytes | None, *position: object) -> bytes | None:
    """Return the identity of an image inside a file with the identity `container`."""
    return None if container is None else _hash(container.hex(), *position)


def _hash(*values: object) -> bytes:
    return hashlib.blake2b(repr(values).encode(), digest_size=16).digest()
