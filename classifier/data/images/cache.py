"""Decoded pictures on this machine's disk: each content once for each way to decode, for all runs, workers and trials.

CACHE/KEY/ holds the segments of one way (size, channels, fit): Arrow files of one record batch, a row a picture, with
the digest of the content that it was decoded from. A segment is written aside, flushed and renamed, and never changes;
a reader maps it, and keeps it even if it is unlinked. files.arrow remembers which file had which content, so
that a file that did not change is not read again. One process builds at a time; others wait, and take what it made.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from classifier.data.images.arrays import MappedImages, Segment
from classifier.data.images.jpeg_segment import JpegSegmentWriter
from classifier.data.images.pixel_segment import DIGEST, PIXELS, PixelSegmentWriter
from classifier.errors import DataError, in_short
from classifier.storage.atomic import fsync, fsync_in_background

logger = logging.getLogger(__name__)

FORMAT = 3
DECODER = 2
"""Another number where the same file decodes to other pixels than before."""
SEGMENT_BYTES, SMALLER = 1 << 30, 4
"""Of pixels, as which JPEGs take a quarter at least of ordinary pictures."""
FILES = "files.arrow"

Decode = Callable[
    [PixelSegmentWriter | JpegSegmentWriter, Sequence[int], Callable[[bytes], bool]], "dict[int, bytes | str]"
]
"""(draft, indices, is_known): those pictures into its rows, but for known contents; by index digest or flaw."""


@dataclass(frozen=True, eq=False)
class Found:
    """What the cache has of N pictures. rows_N: -1 where a picture has a flaw."""

    images: MappedImages
    digests: list[bytes]
    flaws: dict[int, str]


@dataclass(eq=False)
class Cache:
    """The segments of one way to decode."""

    home: Path
    shape: tuple[int, int, int]
    """C, H, W."""
    key: str
    kept_as: str
    segments: list[Segment] = field(default_factory=list)
    _sorted: np.ndarray = field(default_factory=lambda: np.empty(0, "S16"))
    _rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def open(cls, home: Path, shape: tuple[int, int, int], kept_as: str = PIXELS, **settings: object) -> "Cache":
        """The cache of these settings below `home`. kept_as: pixels or jpeg. DataError if that cannot be written."""
        about = {"format": FORMAT, "decoder": DECODER, "shape": shape, "as": kept_as} | settings
        key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
        cache = cls(home, shape, f"{'x'.join(map(str, shape))}-{kept_as}-{key}", kept_as)
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{home} cannot be written ({error.strerror}): give another folder as --data.cache, or none"
            ) from None
        return cache

    @property
    def folder(self) -> Path:
        return self.home / self.key

    def pictures(self, identities: Sequence[bytes | None], decode: Decode, limit: float) -> Found:
        """All of N pictures, of which those that are not there are decoded and added.

        identities: 16 bytes that change with the file; None where nothing is known of it. limit: bytes that all of
        CACHE may take; what was not used for the longest time goes.
        """
        self._read_segments()
        digests, flaws = self._remembered(identities)
        if self._lacking(digests, flaws):
            with self._alone():
                self._read_segments()
                digests, flaws = self._remembered(identities)
                self._build(digests, flaws, decode)
                self._remember(identities, digests, flaws)
                self._make_room(limit)
        rows_N = self._find(digests)
        rows_N[[*flaws]] = -1
        now = time.time()
        for segment in self.segments:
            with contextlib.suppress(OSError):
                os.utime(segment.path, (now, now))
        images = MappedImages(tuple(self.segments), torch.from_numpy(rows_N), self.shape)
        return Found(images, digests, dict(sorted(flaws.items())))

    def _read_segments(self) -> None:
        known = {segment.path: segment for segment in self.segments}
        self.segments = []
        for path in sorted(self.folder.glob("segment-*.arrow")):
            try:
                self.segments.append(known.get(path) or Segment.open(path))
            except FileNotFoundError:  # unlinked meanwhile
                continue
            except (pa.ArrowInvalid, KeyError, OSError) as error:
                logger.warning("%s is damaged (%s): its pictures are decoded again", path, in_short(error))
                path.unlink(missing_ok=True)
        if self.segments:
            digests = np.concatenate([segment.digests_N16 for segment in self.segments]).view("S16").ravel()
            self._rows = np.argsort(digests, kind="stable")
            self._sorted = digests[self._rows]

    def _find(self, digests: Sequence[bytes]) -> np.ndarray:
        """Each content's row; -1 where there is none."""
        wanted = np.array(digests, "S16")
        if not len(self._sorted):
            return np.full(len(wanted), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where((self._sorted[places] == wanted) & (wanted != b""), self._rows[places], -1)

    def _lacking(self, digests: list[bytes], flaws: dict[int, str]) -> list[int]:
        rows_N = self._find(digests)
        return [n for n in np.flatnonzero(rows_N < 0).tolist() if n not in flaws]

    def _build(self, digests: list[bytes], flaws: dict[int, str], decode: Decode) -> None:
        lacking = self._lacking(digests, flaws)
        row_bytes = int(np.prod(self.shape)) // (1 if self.kept_as == PIXELS else SMALLER)
        count = max(1, SEGMENT_BYTES // row_bytes)
        need = len(lacking) * row_bytes
        have = shutil.disk_usage(self.folder).free
        if need > have:
            raise DataError(
                f"{len(lacking):,} pictures need {need / 1e9:,.1f} GB in {self.home}, which has {have / 1e9:,.1f}: "
                "give a folder on a larger disk as --data.cache, or set a smaller --data.size"
            )
        for start in range(0, len(lacking), count):
            part = lacking[start : start + count]
            aside = self.folder / f".{os.getpid()}.segment.part"
            try:
                kind = PixelSegmentWriter if self.kept_as == PIXELS else JpegSegmentWriter
                draft = kind.begin(aside, len(part), self.shape)
                with fsync_in_background(aside):
                    told = decode(draft, part, lambda digest: bool(self._find([digest])[0] >= 0))
                self._commit(draft, [told[index] for index in part])
            except OSError as error:
                raise DataError(
                    f"{self.home} cannot be written ({error.strerror or error}): make room there, or give another "
                    "folder as --data.cache"
                ) from None
            finally:
                aside.unlink(missing_ok=True)
            for index, answer in told.items():
                if isinstance(answer, str):
                    flaws[index] = answer
                else:
                    digests[index] = answer
        self._read_segments()

    def _commit(self, draft: PixelSegmentWriter | JpegSegmentWriter, answers: "list[bytes | str]") -> None:
        """Make it a segment, where a row holds something new. answers: a digest or flaw for each row."""
        rows = self._find([answer if isinstance(answer, bytes) else b"" for answer in answers])
        news: dict[bytes, int] = {}
        for row, answer in enumerate(answers):
            if isinstance(answer, bytes) and rows[row] < 0:
                news.setdefault(answer, row)
        if not news:
            return
        draft.finish({row: digest for digest, row in news.items()})
        number = hashlib.blake2b(b"".join(news), digest_size=8).hexdigest()
        fsync(draft.path)
        os.replace(draft.path, self.folder / f"segment-{number}.arrow")
        self._read_segments()

    def _write(self, batch: pa.RecordBatch, path: Path) -> None:
        part = path.with_name(f".{os.getpid()}.{path.name}.part")
        try:
            with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            fsync(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def _remembered(self, identities: Sequence[bytes | None]) -> tuple[list[bytes], dict[int, str]]:
        """What is known of files that did not change since: their digests, and their flaws by index."""
        digests, flaws = [b""] * len(identities), {}
        known = self._memory()
        for n, identity in enumerate(identities):
            if identity is not None and (told := known.get(identity)) is not None:
                digests[n] = told[0]
                if told[1] is not None:
                    flaws[n] = told[1]
        return digests, flaws

    def _memory(self) -> dict[bytes, tuple[bytes, str | None]]:
        try:
            with pa.memory_map(str(self.folder / FILES)) as file:
                table = pa.ipc.open_file(file).read_all()
        except (OSError, pa.ArrowInvalid):
            return {}
        columns = (table.column(name).to_pylist() for name in ("identity", DIGEST, "flaw"))
        return {identity: (digest, flaw) for identity, digest, flaw in zip(*columns, strict=True)}

    def _remember(self, identities: Sequence[bytes | None], digests: list[bytes], flaws: dict[int, str]) -> None:
        known = self._memory()
        for n, identity in enumerate(identities):
            if identity is not None and (digests[n] or n in flaws):
                known[identity] = (digests[n] or bytes(16), flaws.get(n))
        batch = pa.record_batch(
            [
                _names([*known]),
                _names([digest for digest, _ in known.values()]),
                _strings(flaw for _, flaw in known.values()),
            ],
            names=["identity", DIGEST, "flaw"],
        )
        self._write(batch, self.folder / FILES)

    def _make_room(self, limit: float) -> None:
        """Unlink what was not used for the longest time, of other ways to decode too; never what is used here."""
        mine = {segment.path for segment in self.segments}
        found = []
        for path in self.home.glob("*/segment-*.arrow"):
            with contextlib.suppress(FileNotFoundError):
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                return
            if path not in mine:
                path.unlink(missing_ok=True)
                total -= size
        if total > limit:
            logger.warning("%s takes %.1f GB, more than data.cache_gb: this run needs it all", self.home, total / 1e9)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The only one that builds here; what a builder that died has left is removed."""
        with (self.folder / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                logger.warning("process %s decodes these pictures already: waiting for it", lock.read() or "another")
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            for left in self.folder.glob(".*.part"):
                left.unlink(missing_ok=True)
            yield


def _names(values: Sequence[bytes]) -> pa.Array:
    """An array of 16 bytes each."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(b"".join(values))])


def _strings(values: Iterable[str | None]) -> pa.Array:
    """An array of them. pa.array would look whether they are pandas', and import it for that: half a second."""
    builder = pa.lib.StringBuilder()  # pyright: ignore[reportAttributeAccessIssue]
    for value in values:
        builder.append(value)
    return builder.finish()
