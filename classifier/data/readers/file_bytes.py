"""The bytes of a picture's file, and the name that they have by what they are."""

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import Any

from classifier.data.decoding import decode
from classifier.data.readers.tree import File


def read(file: File, max_bytes: int) -> bytes:
    """The bytes of a picture's file. DecodeError if they cannot be read, are more than that, or might never end."""
    try:
        if isinstance(file, Path):
            size, content = _whole(file, max_bytes)
        else:
            size = getattr(file, "size", None) or 0
            content = file.read_bytes() if size <= max_bytes else b""
        if max(size, len(content)) > max_bytes:
            size = max(size, len(content))
            raise decode.DecodeError(f"its {size:,} bytes are more than data.max_bytes {max_bytes:,}")
        return content
    except OSError as error:
        raise decode.DecodeError(f"it cannot be read ({error.strerror or error})") from None


def _whole(path: Path, max_bytes: int) -> tuple[int, bytes]:
    """Size and content of a file, which is read if it is not larger than that."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:  # to open a pipe otherwise is to wait for its writer
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise decode.DecodeError("it is no regular file")
        return about.st_size, io.FileIO(file, closefd=False).read() if about.st_size <= max_bytes else b""
    finally:
        os.close(file)


def digest(content: Any) -> bytes:
    """16 bytes that two contents (bytes, or arrays of one shape) share only if they are equal."""
    return hashlib.blake2b(content, digest_size=16).digest()
