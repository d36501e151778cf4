"""Which images of a stream cannot be used: each is decoded once to find out, and what is found is remembered."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from classifier.config.documents import read_bytes
from classifier.data.image_decoder import ImageDecoder
from classifier.data.images.cache import DECODER
from classifier.data.images.stream import CHUNK
from classifier.data.readers.file_bytes import compute_digest, file_identity, may_pass
from classifier.errors import RunError
from classifier.storage.atomic import write_atomically
from classifier.storage.file_lock import hold_lock


def find_errors(decoder: ImageDecoder, cache: str | None) -> dict[int, str]:
    """Return why images cannot be used, by index. cache: a folder in which this is remembered until a file changes."""
    path = _find_record(decoder, cache)
    if path is None:
        return _decode(decoder)
    errors = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(path.with_suffix(".lock"), "checking these images"):
            known = _read(path)
            errors = _decode(decoder) if known is None else _try_again(decoder, known)
            if errors != known:
                content = json.dumps(errors)
                write_atomically(path, f"{_checksum(content)}\n{content}")
    except OSError:  # the folder cannot be written
        return _decode(decoder) if errors is None else errors
    return errors


def _decode(decoder: ImageDecoder) -> dict[int, str]:
    errors: dict[int, str] = {}
    count = len(decoder.files)
    with decoder.progress(f"checking {decoder.name}", count) as tick:
        for start in range(0, count, CHUNK):
            block = np.arange(start, min(start + CHUNK, count))
            errors |= decoder.try_block(block)[1]
            tick(len(block))
    return dict(sorted(errors.items()))


def _try_again(decoder: ImageDecoder, errors: dict[int, str]) -> dict[int, str]:
    """Return the errors that are left after another look at the images that could not be read."""
    unread = [index for index, reason in errors.items() if may_pass(reason)]
    errors = {index: reason for index, reason in errors.items() if index not in unread}
    for start in range(0, len(unread), CHUNK):
        errors |= decoder.try_block(np.array(unread[start : start + CHUNK], np.int64))[1]
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
    with contextlib.suppress(RunError, ValueError):
        checksum, _, content = read_bytes(path).decode().partition("\n")
        if checksum == _checksum(content):
            return {int(index): reason for index, reason in json.loads(content).items()}
    return None


def _checksum(content: str) -> str:
    return compute_digest(content.encode()).hex()
