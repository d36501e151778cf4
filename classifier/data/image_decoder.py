"""The decode service of a source: reads its files, each once, and fills rows with their pixels."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from classifier.data.decoding import decode, jpeg
from classifier.data.decoding.decode import DecodeError, DecodeFailure
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.threads import run_in_threads
from classifier.data.decoding.worker_processes import DecodeWorkers, Task, address
from classifier.data.readers.file_bytes import compute_digest, read_image_bytes
from classifier.data.readers.tree import File
from classifier.errors import list_few
from classifier.runtime import cpu

logger = logging.getLogger(__name__)

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
        self, writer: RowWriter, indices: Sequence[int], is_known: Callable[[bytes], bool] = lambda _: False
    ) -> DecodeResults:
        """Write the images of these indices into rows 0, 1, ..., except those whose digest is known.

        The rows of known and of unusable images are left as they are.
        """
        rows = {index: row for row, index in enumerate(indices)}
        job = _Fill(self, writer, rows, is_known, DecodeResults({}, {}))
        if len(indices) <= MAX_IN_THREADS:
            run_in_threads(job.decode, indices, self.max_seconds, job.time_out)
        else:
            cpu.setup()  # the memory of freed pixels is reused for the next image
            job.decode_in_processes(indices)
        return job.results

    def read(self, index: int) -> bytes:
        """Return the bytes of a file. DecodeError if it cannot be read, or is too large."""
        return read_image_bytes(self.files[index], self.max_bytes)

    def decode_block(self, indices: np.ndarray) -> np.ndarray:
        """Return the images of these indices, uint8 N x C x H x W; those that cannot be used are black, and logged."""
        pixels_NCHW = np.zeros((len(indices), *self.spec.shape), np.uint8)
        errors: dict[int, str] = {}

        def work(row: int) -> None:
            try:
                pixels_NCHW[row] = decode.decode_bytes(self.read(int(indices[row])), self.spec)
            except DecodeError as error:
                errors[row] = str(error)

        def time_out(row: int) -> None:
            errors[row] = decode.timeout_reason(self.max_seconds)

        run_in_threads(work, range(len(indices)), self.max_seconds, time_out)
        if errors:
            named = [f"{self.files[indices[row]]} ({error})" for row, error in errors.items()]
            logger.warning("%d images of %s cannot be used, and are black: %s", len(errors), self.name, list_few(named))
        return pixels_NCHW


@dataclass(frozen=True, eq=False)
class _Fill:
    """One call of ImageDecoder.fill. rows: by index; results: what it returns."""

    decoder: ImageDecoder
    writer: RowWriter
    rows: dict[int, int]
    is_known: Callable[[bytes], bool]
    results: DecodeResults

    def read(self, index: int) -> bytes | None:
        """Read a file, and record its digest, or why it cannot be read; None if there is nothing to decode."""
        try:
            content = self.decoder.read(index)
        except DecodeError as error:
            self.results.add_error(index, str(error))
            return None
        self.results.digests[index] = digest = compute_digest(content)
        return None if self.is_known(digest) else content

    def decode(self, index: int) -> None:
        """Read, decode and write an image."""
        content = self.read(index)
        if content is not None:
            try:
                self.writer.write(self.rows[index], decode.decode_bytes(content, self.decoder.spec))
            except DecodeError as error:
                self.results.add_error(index, str(error))

    def time_out(self, index: int) -> None:
        self.results.add_error(index, decode.timeout_reason(self.decoder.max_seconds))

    def decode_in_processes(self, indices: Sequence[int]) -> None:
        """Common JPEGs in threads of this process, the others in processes, which can be killed."""
        decoder, spec = self.decoder, self.decoder.spec
        shared = self.writer.to_words()
        task = Task.rows(spec, shared) if shared else Task.pixels(spec)
        workers = DecodeWorkers(task, decoder.max_seconds, cpu.available_cores())
        with decoder.progress(f"decoding {decoder.name}", len(indices)) as tick:

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
                if isinstance(reply, DecodeFailure):
                    self.results.add_error(index, reply.reason)
                elif not shared:
                    self.writer.write(self.rows[index], np.frombuffer(reply, np.uint8).reshape(spec.shape))
