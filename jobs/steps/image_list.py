"""The images that a command line names: files, folders, and `-` for a list of files on standard input."""

import io
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from classifier.bundle.predictor import image_files
from classifier.errors import DataError

STDIN = "-"


def find_images(words: Sequence[str], *, null: bool = False) -> tuple[Iterator[Path], list[str]]:
    """The image files in the order of the arguments, and notes on what was left out of folders.

    Standard input is read as the files are consumed. null: its paths end with NUL instead of a newline. DataError at
    once for an argument that does not exist; a path on standard input may name anything.
    """
    if words.count(STDIN) > 1:
        raise DataError("standard input can be read only once: give - once")
    stdin = cast("io.BufferedIOBase", sys.stdin.buffer)
    notes: list[str] = []
    found = {word: image_files([word], notes) for word in words if word != STDIN}
    files = (read_paths(stdin, null=null) if word == STDIN else found[word] for word in words)
    return itertools.chain.from_iterable(files), notes


def read_paths(stream: io.BufferedIOBase, *, null: bool) -> Iterator[Path]:
    """Paths from a stream, as soon as each is there. DataError if it holds something else."""
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
