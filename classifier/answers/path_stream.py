"""Paths that another program writes, one per line, as `find` does."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

from classifier.errors import DataError


def read_paths(stream: io.BufferedIOBase, *, null: bool = False) -> Iterator[Path]:
    """Yield the paths in a stream, each as soon as it is there. DataError if it holds something else.

    null: they end with NUL instead of a newline.
    """
    for record in _split(stream, b"\0" if null else b"\n"):
        path = record if null else record.removesuffix(b"\r")
        if b"\0" in path:
            raise DataError(
                "standard input is no list of paths, one per line: use --null if each ends with NUL (find -print0), or "
                "/dev/stdin instead of - for the content of a single image"
            )
        if path:
            yield Path(os.fsdecode(path))


def _split(stream: io.BufferedIOBase, end: bytes) -> Iterator[bytes]:
    rest = b""
    while block := stream.read1(1 << 16):  # what is there, without waiting for a full block
        *records, rest = (rest + block).split(end)
        yield from records
    yield rest
