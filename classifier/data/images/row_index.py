"""Which row of which segment holds the image of a content, and whether it is as it was written."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from classifier.data.images.arrays import Segment
from classifier.data.images.row_hash import HASH_BYTES

logger = logging.getLogger(__name__)

BLOCK_ROWS = 1024
"""Rows that are hashed between two ticks of the progress."""


class _Rows:
    """What is known of a segment's rows: their hashes as they are now, once they were checked."""

    def __init__(self, count: int) -> None:
        self.hashes_N = np.zeros(count, f"V{HASH_BYTES}")
        self.is_checked_N, self.is_damaged_N = np.zeros(count, bool), np.zeros(count, bool)


class RowIndex:
    """The rows of all segments, numbered over them in their order. Rows found to be damaged are left out."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self._rows_of: dict[Path, _Rows] = {}
        self._sort()

    def update(self, segments: list[Segment]) -> None:
        """Index these segments; what is known of those that were here before is kept.

        Where several have an image of one content, that of the latest version is found.
        """
        self.segments = sorted(segments, key=lambda segment: segment.hashes_N is None)
        for segment in segments:
            self._rows_of.setdefault(segment.path, _Rows(len(segment)))
        self._sort()

    def forget(self, path: Path) -> None:
        """Drop a segment whose file was replaced, until the next update."""
        self.segments = [segment for segment in self.segments if segment.path != path]
        self._rows_of.pop(path, None)
        self._sort()

    def find(self, digests: Sequence[bytes]) -> np.ndarray:
        """Return each content's row, int64; -1 where there is none."""
        wanted, rows_N = np.array(digests, "S16"), np.full(len(digests), -1, np.int64)
        if len(self._sorted):
            order_N = np.argsort(wanted, kind="stable")  # in order they are found in a third of the time
            wanted = wanted[order_N]
            positions_N = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
            is_found_N = (self._sorted[positions_N] == wanted) & (wanted != b"")
            rows_N[order_N] = np.where(is_found_N, self._rows_N[positions_N], -1)
        return rows_N

    def is_recent(self, digest: bytes) -> bool:
        """Was the image of this content written by a version that writes hashes?"""
        row = int(self.find([digest])[0])
        for segment in self.segments:
            if row < len(segment):
                return row >= 0 and segment.hashes_N is not None
            row -= len(segment)
        return False

    def count_earlier(self) -> int:
        """Return the number of images that an earlier version wrote."""
        return sum(len(segment) for segment in self.segments if segment.hashes_N is None)

    def check(self, digests: Sequence[bytes], tick: Callable[[int], None] = lambda _: None) -> tuple[np.ndarray, int]:
        """Return each content's row that is intact, int64, or -1; and how many contents have lost their last one.

        Rows are compared with their hashes, once each. Those of an earlier version, which have none, are hashed, and
        count as intact. tick: called with the number of rows just checked.
        """
        rows_N = self.find(digests)
        had_a_row_N = rows_N >= 0
        while self._hash_unchecked(rows_N, tick):  # a damaged row may have a copy in another segment
            self._sort()
            rows_N = self.find(digests)
        return rows_N, int((had_a_row_N & (rows_N < 0)).sum())

    def hashes(self, rows_N: np.ndarray) -> np.ndarray:
        """Return the hashes of these rows, which were checked, V16; zeros for -1."""
        return np.concatenate([np.zeros(1, f"V{HASH_BYTES}"), self._known("hashes_N")])[rows_N + 1]

    def _hash_unchecked(self, rows_N: np.ndarray, tick: Callable[[int], None]) -> bool:
        """Hash those of these rows that were not checked yet; return whether one is damaged."""
        rows_N, is_any_damaged = np.unique(rows_N[rows_N >= 0]), False
        if len(rows_N):
            rows_N = rows_N[~self._known("is_checked_N")[rows_N]]
        for segment, rows, own_rows_N in self._split(rows_N):
            for start in range(0, len(own_rows_N), BLOCK_ROWS):
                block_N = own_rows_N[start : start + BLOCK_ROWS]
                rows.hashes_N[block_N] = hashes_N = segment.hash_images(block_N)
                rows.is_checked_N[block_N] = True
                if segment.hashes_N is not None:
                    rows.is_damaged_N[block_N] = is_damaged_N = hashes_N != segment.hashes_N[block_N]
                    is_any_damaged |= bool(is_damaged_N.any())
                tick(len(block_N))
        return is_any_damaged

    def _sort(self) -> None:
        self._rows_N, self._sorted = np.empty(0, np.int64), np.empty(0, "S16")
        if self.segments:
            digests = np.concatenate([segment.digests_N16 for segment in self.segments]).view("S16").ravel()
            intact_N = np.flatnonzero(~self._known("is_damaged_N"))
            self._rows_N = intact_N[np.argsort(digests[intact_N], kind="stable")]
            self._sorted = digests[self._rows_N]

    def _known(self, name: str) -> np.ndarray:
        parts = [getattr(self._rows_of[segment.path], name) for segment in self.segments]
        return np.concatenate(parts) if parts else getattr(_Rows(0), name)

    def _split(self, rows_N: np.ndarray) -> Iterator[tuple[Segment, _Rows, np.ndarray]]:
        """Yield each segment, what is known of it, and those of these sorted rows that it has, numbered within it."""
        start = 0
        for segment in self.segments:
            end = start + len(segment)
            low, high = np.searchsorted(rows_N, (start, end))
            yield segment, self._rows_of[segment.path], rows_N[low:high] - start
            start = end
