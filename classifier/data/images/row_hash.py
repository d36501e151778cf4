"""Hashes of images as they are stored: they reveal damaged rows of the cache, and images with the same pixels.

XXH3 with 128 bits is not made against forgery, but for speed: more than 10 GB/s on one core. A forged hash gains
little: at worst two different images stay in one split. Like pixel_segment.py, this module imports no torch.
"""

from collections.abc import Iterable

import numpy as np
import xxhash

HASH_BYTES = 16


def hash_row(stored: np.ndarray) -> bytes:
    """Return 16 bytes: the hash of an image's pixels, or of its JPEG. stored: uint8, contiguous."""
    return xxhash.xxh3_128_digest(stored.data)


def hash_rows(stored_rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return the `hash_row` of each, V16."""
    digest = xxhash.xxh3_128_digest
    return np.frombuffer(b"".join([digest(row.data) for row in stored_rows]), f"V{HASH_BYTES}")


def hash_columns(columns: Iterable[np.ndarray]) -> str:
    """Return one hash over whole arrays, in hex."""
    hasher = xxhash.xxh3_128()
    for column in columns:
        hasher.update(np.ascontiguousarray(column).data)
    return hasher.hexdigest()
