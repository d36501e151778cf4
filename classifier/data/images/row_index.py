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
        wanted = np.array(digests, "S16")
        if not len(self._sorted):
            return np.full(len(wanted), -1, np.int64)
        positions = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where((self._sorted[positions] == wanted) & (wanted != b""), self._rows_N[positions], -1)

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

    def check(self, digests: Sequence[bytes], tick: Callable[[int], None] = lambda _: None) -> int:
        """Compare the rows of these contents with their hashes; return how many contents have no intact row left.

        Each row is checked once. Rows of an earlier version, which have no hashes, are hashed, and count as intact.
        tick: called with the number of rows just checked.
        """
        had_a_row_N = self.find(digests) >= 0
        while len(rows_N := self._find_unchecked(digests)):  # a damaged row may have a copy in another segment
            for segment, rows, own_rows_N in self._split(rows_N):
                for start in range(0, len(own_rows_N), BLOCK_ROWS):
                    block_N = own_rows_N[start : start + BLOCK_ROWS]
                    rows.hashes_N[block_N] = hashes_N = segment.hash_images(block_N)
                    rows.is_checked_N[block_N] = True
                    if segment.hashes_N is not None:
                        rows.is_damaged_N[block_N] = hashes_N != segment.hashes_N[block_N]
                    tick(len(block_N))
            self._sort()
        return int((had_a_row_N & (self.find(digests) < 0)).sum())

    def hashes(self, digests: Sequence[bytes]) -> np.ndarray:
        """Return the hashes of these contents' rows, which were checked, V16; zeros where there is none."""
        hashes = [self._rows_of[segment.path].hashes_N for segment in self.segments]
        return np.concatenate([np.zeros(1, f"V{HASH_BYTES}"), *hashes])[self.find(digests) + 1]

    def _sort(self) -> None:
        self._rows_N, self._sorted = np.empty(0, np.int64), np.empty(0, "S16")
        if self.segments:
            digests = np.concatenate([segment.digests_N16 for segment in self.segments]).view("S16").ravel()
            intact_N = np.flatnonzero(~self._known("is_damaged_N"))
            self._rows_N = intact_N[np.argsort(digests[intact_N], kind="stable")]
            self._sorted = digests[self._rows_N]

    def _find_unchecked(self, digests: Sequence[bytes]) -> np.ndarray:
        rows_N = np.unique(self.find(digests))
        rows_N = rows_N[rows_N >= 0]
        return rows_N[~self._known("is_checked_N")[rows_N]] if len(rows_N) else rows_N

    def _known(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(self._rows_of[segment.path], name) for segment in self.segments])

    def _split(self, rows_N: np.ndarray) -> Iterator[tuple[Segment, _Rows, np.ndarray]]:
        """Yield each segment, what is known of it, and those of these sorted rows that it has, numbered within it."""
        start = 0
        for segment in self.segments:
            end = start + len(segment)
            low, high = np.searchsorted(rows_N, (start, end))
            yield segment, self._rows_of[segment.path], rows_N[low:high] - start
            start = end
