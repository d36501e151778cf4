"""The decode service of a source: reads its files, each once, and fills rows with their pixels."""

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classifier.data.decoding import jpeg
from classifier.data.decoding.bounded import BoundedDecoder
from classifier.data.decoding.decode import DecodeFailure
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.tasks import Task, address
from classifier.data.decoding.worker_processes import DecodeWorkers
from classifier.data.readers.file_bytes import File, compute_digest, read_image_bytes
from classifier.errors import DataError, list_few
from classifier.runtime import cpu

MAX_IN_THREADS = 64
"""Up to this many images are decoded in threads of this process: starting others takes longer."""
Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]
"""(what is done, how many times) -> a context, which gives the function to call with how many more are done."""


class RowWriter(Protocol):
    """Where decoded images go. Called in threads."""

    def write(self, row: int, pixels_CHW: np.ndarray) -> None: ...

    def to_words(self) -> list[str]:
        """The arguments that describe it to another process; none if only this process can write."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayWriter:
    """Rows in memory: uint8 N x C x H x W."""

    images_NCHW: np.ndarray

    def write(self, row: int, pixels_CHW: np.ndarray) -> None:
        self.images_NCHW[row] = pixels_CHW

    def to_words(self) -> list[str]:
        return []


@contextlib.contextmanager
def no_progress(_: str, __: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@dataclass(frozen=True, eq=False)
class DecodeResults:
    """By index: the digest of each usable image's content, or why an image cannot be used."""

    digests: dict[int, bytes]
    errors: dict[int, str]

    def add_error(self, index: int, reason: str) -> None:
        self.errors[index] = reason
        self.digests.pop(index, None)


@dataclass(frozen=True, eq=False)
class ImageDecoder:
    """Decodes the files of one source to one spec."""

    name: str
    files: Sequence[File]
    spec: ImageSpec
    max_bytes: int
    """Larger files are refused."""
    max_seconds: float
    """Images that take longer are refused."""
    progress: Progress = no_progress

    def fill(
        self, writer: RowWriter, indices: Sequence[int], is_known: Callable[[bytes, bytes], bool] = lambda *_: False
    ) -> DecodeResults:
        """Write the images of these indices into rows 0, 1, ..., except those that are known, by digest and content.

        The rows of known and of unusable images are left as they are.
        """
        rows = {index: row for row, index in enumerate(indices)}
        job = _Fill(self, writer, rows, is_known, DecodeResults({}, {}))
        if len(indices) <= MAX_IN_THREADS:
            with BoundedDecoder(Task.pixels(self.spec), self.max_seconds) as decoder:
                for index, reply in decoder.map(job.read, indices):
                    job.store(index, reply)
        else:
            cpu.setup()  # the memory of freed pixels is reused for the next image
            job.decode_in_processes(indices)
        return job.results

    def read(self, index: int) -> bytes:
        """Return the bytes of a file. DecodeError if it cannot be read, or is too large."""
        return read_image_bytes(self.files[index], self.max_bytes)

    def decode_block(self, indices: np.ndarray, unusable: Container[int] = ()) -> np.ndarray:
        """Return the images of these indices, uint8 N x C x H x W; those known to be unusable are black.

        DataError names others that cannot be used.
        """
        pixels_NCHW, errors = self.try_block(indices, unusable)
        if errors:
            named = list_few([f"{self.files[index]} ({error})" for index, error in errors.items()])
            raise DataError(
                f"{self.name}: {len(errors):,} images cannot be used any more: {named}; restore them, and go on by "
                "--resume"
            )
        return pixels_NCHW

    def try_block(self, indices: np.ndarray, left_out: Container[int] = ()) -> tuple[np.ndarray, dict[int, str]]:
        """Return the images of these indices, and why some of them, which are black, cannot be used, by index.

        Those left out are black, too.
        """
        pixels_NCHW = np.zeros((len(indices), *self.spec.shape), np.uint8)
        rows = {index: row for row, index in enumerate(indices.tolist())}
        job = _Fill(self, ArrayWriter(pixels_NCHW), rows, lambda *_: False, DecodeResults({}, {}))
        with BoundedDecoder(Task.pixels(self.spec), self.max_seconds) as decoder:
            for index, reply in decoder.map(job.read, [index for index in rows if index not in left_out]):
                job.store(index, reply)
        return pixels_NCHW, job.results.errors


@dataclass(frozen=True, eq=False)
class _Fill:
    """One call of ImageDecoder.fill. rows: by index; results: what it returns."""

    decoder: ImageDecoder
    writer: RowWriter
    rows: dict[int, int]
    is_known: Callable[[bytes, bytes], bool]
    results: DecodeResults

    def read(self, index: int) -> bytes | None:
        """Read a file, and record its digest, or why it cannot be read; None if there is nothing to decode."""
        try:
            content = self.decoder.read(index)
        except DecodeError as error:
            self.results.add_error(index, str(error))
            return None
        self.results.digests[index] = digest = compute_digest(content)
        return None if self.is_known(digest, content) else content

    def store(self, index: int, reply: bytes | DecodeFailure) -> None:
        """Write the pixels of an image, or record why it cannot be used."""
        if isinstance(reply, DecodeFailure):
            self.results.add_error(index, reply.reason)
        else:
            pixels_CHW = np.frombuffer(reply, np.uint8).reshape(self.decoder.spec.shape)
            self.writer.write(self.rows[index], pixels_CHW)

    def decode_in_processes(self, indices: Sequence[int]) -> None:
        """Common JPEGs in threads of this process, the others in processes, which can be killed."""
        decoder, spec = self.decoder, self.decoder.spec
        shared = self.writer.to_words()
        task = Task.rows(spec, shared) if shared else Task.pixels(spec)
        with (
            DecodeWorkers(task, decoder.max_seconds, cpu.available_cores()) as workers,
            decoder.progress(f"decoding {decoder.name}", len(indices)) as tick,
        ):

            def decode_or_pass_on(index: int) -> bytes | None:
                tick(1)
                content = self.read(index)
                if content is None:
                    return None
                if (pixels_CHW := jpeg.decode_fast(content, spec)) is not None:
                    self.writer.write(self.rows[index], pixels_CHW)
                    return None
                return address(self.rows[index], content) if shared else content

            for index, reply in workers.map(decode_or_pass_on, indices):
                if isinstance(reply, DecodeFailure) or not shared:
                    self.store(index, reply)
