"""Files that are whole or absent: atomic writing, checksums, and the format version that every document carries."""

import hashlib
import os
from pathlib import Path
from typing import Any

from classifier.errors import RunError


def refuse_unknown_format(document: dict[str, Any], path: Path, known: int) -> None:
    """RunError if `document` was written by a newer version, in words that name the file and both numbers."""
    version = document.get("format_version")
    if version != known:
        raise RunError(f"{path}: format_version is {version!r}, this version reads {known}; update the package")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    flush(part)
    os.replace(part, path)


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have the disk hold what was written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
