"""Which images of a stream cannot be used: each is decoded once to find out, and what is found is remembered."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from classifier.data.image_decoder import ImageDecoder
from classifier.data.images.cache import DECODER
from classifier.data.images.stream import CHUNK
from classifier.data.readers.file_bytes import file_identity
from classifier.storage.atomic import write_atomically
from classifier.storage.file_lock import open_lock


def find_errors(decoder: ImageDecoder, cache: str | None) -> dict[int, str]:
    """Return why images cannot be used, by index. cache: a folder in which this is remembered until a file changes."""
    path = _find_record(decoder, cache)
    if path is None:
        return _decode_all(decoder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_lock(path.with_suffix(".lock")):  # another process may be at it
            errors = _read(path)
            if errors is None:
                errors = _decode_all(decoder)
                write_atomically(path, json.dumps(errors))
    except OSError:  # it cannot be written
        return _decode_all(decoder)
    return errors


def _decode_all(decoder: ImageDecoder) -> dict[int, str]:
    errors: dict[int, str] = {}
    count = len(decoder.files)
    with decoder.progress(f"checking {decoder.name}", count) as tick:
        for start in range(0, count, CHUNK):
            block = np.arange(start, min(start + CHUNK, count))
            errors |= decoder.try_block(block)[1]
            tick(len(block))
    return dict(sorted(errors.items()))


def _find_record(decoder: ImageDecoder, cache: str | None) -> Path | None:
    """Return the file for these images as they are now; None if a change of one of them would go unnoticed."""
    if cache is None:
        return None
    hasher = hashlib.blake2b(repr((DECODER, decoder.spec, decoder.max_bytes, decoder.max_seconds)).encode())
    for file in decoder.files:
        identity = file_identity(file) if isinstance(file, Path) else file.identity()
        if identity is None:
            return None
        hasher.update(identity)
    return Path(os.path.expanduser(cache)) / "streams" / f"{hasher.hexdigest()[:32]}.json"


def _read(path: Path) -> dict[int, str] | None:
    """Return what is remembered; None if nothing is, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return {int(index): str(reason) for index, reason in json.loads(path.read_text()).items()}
    return None
