"""The bytes of an image file, and their digest."""

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import Any

from classifier.data.decoding import decode
from classifier.data.readers.tree import File


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
        raise decode.DecodeError(f"it cannot be read ({error.strerror or error})") from None


def _read_regular_file(path: Path, max_bytes: int) -> tuple[int, bytes]:
    """Return a file's size and content; files larger than max_bytes are not read."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:  # O_NONBLOCK: opening a pipe would wait for its writer
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise decode.DecodeError("it is no regular file")
        return about.st_size, io.FileIO(file, closefd=False).read() if about.st_size <= max_bytes else b""
    finally:
        os.close(file)


def compute_digest(content: Any) -> bytes:
    """Return 16 bytes that are equal for two contents (bytes, or arrays of one shape) only if the contents are."""
    return hashlib.blake2b(content, digest_size=16).digest()
