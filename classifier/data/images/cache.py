"""Decoded images on this machine's disk, once per content and way to decode it, for all runs, workers and trials.

CACHE/KEY/ holds the segments of one way (size, channels, fit): Arrow files of one record batch, one row per image, with
the digest of the content that it was decoded from and a hash of the row. A segment is written to a temporary file,
synced and renamed, and never changes; a reader maps it, and keeps it even if it is unlinked. Its name is the hash of
all its columns but the images, which are compared with their hashes before they are used. FILES records which file
had which content, so that an unchanged file is not read again. One process builds at a time; others wait, and use its
results.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from classifier.data.images.arrays import MappedImages, Segment
from classifier.data.images.file_states import FileStates, read_states, write_states
from classifier.data.images.jpeg_segment import JpegSegmentWriter
from classifier.data.images.pixel_segment import PIXELS, PixelSegmentWriter
from classifier.data.images.row_index import RowIndex
from classifier.errors import DataError, in_short
from classifier.storage.atomic import fsync, fsync_in_background
from classifier.storage.file_lock import hold_lock

logger = logging.getLogger(__name__)

FORMAT = 3
DECODER = 2
"""Changes whenever any file would decode to other pixels than before; for a few kinds of files see decoding.earlier."""
SEGMENT_BYTES, JPEG_RATIO = 1 << 30, 4
"""Of pixels; JPEGs of ordinary images take a quarter of that at most."""


@dataclass(eq=False)
class NewSegment:
    """A segment under construction. digests: of each row's content, empty if it has no image; set once it is filled."""

    writer: PixelSegmentWriter | JpegSegmentWriter
    digests: Sequence[bytes] = ()


@dataclass(eq=False)
class Cache:
    """The segments of one way to decode.

    `look_up` says what is known of files, `find_missing` which images are not cached, or damaged; a `new_segment` takes
    those.
    """

    root: Path
    shape: tuple[int, int, int]
    """C, H, W."""
    key: str
    stored_as: str
    index: RowIndex = field(default_factory=RowIndex)
    _outdated: set[bytes] = field(default_factory=set)
    """Contents whose images an earlier version decoded otherwise."""

    @classmethod
    def open(cls, root: Path, shape: tuple[int, int, int], stored_as: str = PIXELS, **settings: object) -> "Cache":
        """Open the cache of these settings in `root`. stored_as: pixels or jpeg. DataError if it cannot be written."""
        about = {"format": FORMAT, "decoder": DECODER, "shape": shape, "as": stored_as} | settings
        key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
        cache = cls(root, shape, f"{'x'.join(map(str, shape))}-{stored_as}-{key}", stored_as)
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{root} cannot be written ({error.strerror}): give another folder as --data.cache, or none"
            ) from None
        return cache

    @property
    def folder(self) -> Path:
        return self.root / self.key

    def look_up(
        self, identities: Sequence[bytes | None], may_pass: Callable[[str], bool] = lambda _: False
    ) -> FileStates:
        """Return what is known of files that did not change since.

        identities: 16 bytes that change with the file; None for a file whose changes would go unnoticed. may_pass:
        whether a file that could not be used for this reason may be usable now; then nothing is known of it.
        """
        self._read_segments()
        return read_states(self.folder, identities, may_pass)

    def find_missing(self, states: FileStates, tick: Callable[[int], None] = lambda _: None) -> list[int]:
        """Return the indices of files that may have an image, but no intact one here.

        Images are compared with their hashes when they are first looked for, and damaged ones are logged. tick: called
        with the number of images just compared.
        """
        rows_N, damaged = self.index.check(states.digests, tick)
        if damaged:
            logger.warning("%s images in %s are damaged: they are decoded again", f"{damaged:,}", self.folder)
        return [n for n in np.flatnonzero(rows_N < 0).tolist() if n not in states.errors]

    def contains(self, digest: bytes, content: bytes, may_differ: Callable[[bytes], bool] = lambda _: False) -> bool:
        """Is there an image of this content?

        may_differ: whether earlier versions may have decoded a content otherwise; their image then does not count.
        """
        if self.index.find([digest])[0] < 0:
            return False
        if self.index.is_recent(digest) or not may_differ(content):
            return True
        self._outdated.add(digest)
        return False

    def map_images(self, states: FileStates) -> tuple[MappedImages, np.ndarray]:
        """Return the images of all files, and their hashes (V16), which are equal for images with the same pixels.

        Those of files that cannot be used are undefined. DataError if images that were just written are damaged.
        """
        rows_N, _ = self.index.check(states.digests)
        rows_N[[*states.errors]] = -1
        if (rows_N < 0).sum() > len(states.errors):
            raise DataError(f"{self.root} does not keep what is written to it: give another disk as --data.cache")
        now = time.time()
        for segment in self.index.segments:
            with contextlib.suppress(OSError):
                os.utime(segment.path, (now, now))
        images_NCHW = MappedImages(tuple(self.index.segments), torch.from_numpy(rows_N), self.shape)
        return images_NCHW, self.index.hashes(rows_N)

    def plan_segments(self, missing: Sequence[int]) -> list[Sequence[int]]:
        """Cut missing images into segments of at most SEGMENT_BYTES. DataError if the disk is too small for them."""
        row_bytes = int(np.prod(self.shape)) // (1 if self.stored_as == PIXELS else JPEG_RATIO)
        count = max(1, SEGMENT_BYTES // row_bytes)
        # Files of an earlier version's cache are read again, but few of them are decoded again.
        required = max(0, len(missing) - self.index.count_earlier()) * row_bytes
        available = shutil.disk_usage(self.folder).free
        if required > available:
            raise DataError(
                f"{len(missing):,} images need {required / 1e9:,.1f} GB in {self.root}, which has "
                f"{available / 1e9:,.1f}: give a folder on a larger disk as --data.cache, or set a smaller --data.size"
            )
        return [missing[start : start + count] for start in range(0, len(missing), count)]

    @contextlib.contextmanager
    def new_segment(self, count: int) -> Iterator[NewSegment]:
        """A segment of `count` rows to fill, which is added at the end. DataError if it cannot be written."""
        temporary = self.folder / f".{os.getpid()}.segment.part"
        try:
            writer = PixelSegmentWriter if self.stored_as == PIXELS else JpegSegmentWriter
            segment = NewSegment(writer.create(temporary, count, self.shape))
            with fsync_in_background(temporary):
                yield segment
            self._add(segment)
        except OSError as error:
            raise DataError(
                f"{self.root} cannot be written ({error.strerror or error}): free some space, or give another folder "
                "as --data.cache"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _add(self, segment: NewSegment) -> None:
        """Finish it, if a row holds something new."""
        new_rows: dict[bytes, int] = {}
        for row, (digest, known_row) in enumerate(zip(segment.digests, self.index.find(segment.digests), strict=True)):
            if digest and (known_row < 0 or digest in self._outdated):
                new_rows.setdefault(digest, row)
        if not new_rows:
            return
        segment.writer.finish({row: digest for digest, row in new_rows.items()})
        name = Segment.open(segment.writer.path).hash_table()
        fsync(segment.writer.path)
        path = self.folder / f"segment-{name}.arrow"
        os.replace(segment.writer.path, path)
        self.index.forget(path)  # it may replace a damaged one
        self._read_segments()

    def remember(self, identities: Sequence[bytes | None], states: FileStates) -> None:
        """Record what is known of these files, for the next `look_up`; a full disk does not stop a run whose images are
        all there."""
        try:
            write_states(self.folder, identities, states)
        except OSError as error:
            reason = error.strerror or error
            logger.warning("%s cannot be written (%s): the next run reads all files again", self.folder, reason)

    def evict(self, max_bytes: float) -> None:
        """Unlink the least recently used segments under `root`, also those of other ways to decode, until it takes at
        most `max_bytes`; never those in use here."""
        own = {segment.path for segment in self.index.segments}
        found = []
        for path in self.root.glob("*/segment-*.arrow"):
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= max_bytes:
                return
            if path not in own:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= size
        if total > max_bytes:
            logger.warning("%s takes %.1f GB, more than data.cache_gb: this run needs it all", self.root, total / 1e9)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process that builds here; temporary files of a builder that was killed are removed.

        DataError if the folder cannot be locked.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self.folder / ".lock", "decoding these images"))
            except OSError as error:
                raise DataError(
                    f"{self.folder} cannot be locked ({error.strerror or error}): give another folder as --data.cache, "
                    "or none"
                ) from None
            for leftover in self.folder.glob(".*.part"):
                leftover.unlink(missing_ok=True)
            yield

    def _read_segments(self) -> None:
        known = {segment.path: segment for segment in self.index.segments}
        segments = []
        for path in sorted(self.folder.glob("segment-*.arrow")):
            if not path.is_file():  # unlinked meanwhile; or a pipe, which would be waited for
                continue
            try:
                segments.append(known.get(path) or _open_segment(path))
            except FileNotFoundError:
                continue
            except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("%s is corrupted (%s): its images are decoded again", path, in_short(error))
                with contextlib.suppress(OSError):  # of another user
                    path.unlink(missing_ok=True)
        self.index.update(segments)


def _open_segment(path: Path) -> Segment:
    """Open a segment, and check everything in it but the images. ValueError if it was changed; see Segment.open."""
    segment = Segment.open(path)
    name = segment.hash_table()
    if name is not None and path.stem != f"segment-{name}":
        raise ValueError("its checksum differs")
    return segment
