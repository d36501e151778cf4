"""Images in any form to the pixels that a model sees: files, encoded bytes, Pillow images and arrays, all alike."""

import functools
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from classifier.data.decoding import decode, image_file
from classifier.data.decoding.bounded import BoundedDecoder
from classifier.data.decoding.decode import DecodeFailure
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.tasks import Task
from classifier.data.decoding.threads import run_in_threads
from classifier.data.readers.file_bytes import File, read_image_bytes
from classifier.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

ImageInput: TypeAlias = "str | File | bytes | Image | np.ndarray[Any, Any]"
"""A file, also in an archive, a table or remote storage; an encoded file's bytes; a Pillow image; or a uint8 array of
H x W (grey) or H x W x 3 or 4."""


class ImageReader:
    """Reads and decodes images to one spec, within limits: spec.max_pixels, bytes and seconds of an image."""

    def __init__(self, spec: ImageSpec, max_bytes: int, max_seconds: float) -> None:
        self.spec, self.max_bytes, self.max_seconds = spec, max_bytes, max_seconds
        self._decoder = BoundedDecoder(Task.pixels(spec), max_seconds)

    def decode(self, images: Sequence[ImageInput]) -> list[Any]:
        """Return the uint8 array, channels x size x size, of each image, or the DataError that says why it has none."""
        results: dict[int, Any] = {}
        contents = {n: content for n, image in enumerate(images) if (content := _find_content(image)) is not None}

        def prepare(index: int) -> None:
            try:
                results[index] = self._prepare(images[index])
            except DataError as error:
                results[index] = error

        for index, pixels in self._decode_contents(contents):
            image = images[index]
            source = Path(str(image)) if isinstance(image, str | Path) or hasattr(image, "pack") else b""
            is_failure = isinstance(pixels, DecodeFailure)
            results[index] = decode.data_error(source, pixels.reason) if is_failure else pixels
        run_in_threads(prepare, [n for n in range(len(images)) if n not in contents])
        return [results[n] for n in range(len(images))]

    def decode_here(self, contents: Sequence[bytes]) -> list[Any]:
        """`decode` of encoded files, one after the other, in the calling thread: see BoundedDecoder.decode_here."""
        results: list[Any] = []
        for content in contents:
            try:
                pixels = self._decoder.decode_here(_check_length(content, self.max_bytes))
                results.append(np.frombuffer(pixels, np.uint8).reshape(self.spec.shape))
            except DecodeError as error:
                results.append(decode.data_error(b"", str(error)))
        return results

    def close(self) -> None:
        """End the processes that decode; it can be used again."""
        self._decoder.close()

    def decode_files(self, files: Sequence[File]) -> "list[np.ndarray | DecodeFailure]":
        """Return the uint8 array, channels x size x size, of each file, or why it has none."""
        contents = {n: functools.partial(read_image_bytes, file) for n, file in enumerate(files)}
        results = dict(self._decode_contents(contents))
        return [results[n] for n in range(len(files))]

    def _decode_contents(
        self, contents: Mapping[int, Callable[[int], bytes]]
    ) -> "Iterator[tuple[int, np.ndarray | DecodeFailure]]":
        def read(index: int) -> bytes | DecodeFailure:
            try:
                return contents[index](self.max_bytes)
            except DecodeError as error:
                return DecodeFailure(str(error))

        for index, reply in self._decoder.map(read, [*contents]):
            is_failure = isinstance(reply, DecodeFailure)
            yield index, reply if is_failure else np.frombuffer(reply, np.uint8).reshape(self.spec.shape)

    def _prepare(self, image: Any) -> np.ndarray:
        """Return the array of an image whose pixels are in memory. DataError if it cannot be used."""
        from PIL import Image

        if isinstance(image, np.ndarray):
            image = _from_array(image, self.spec.max_pixels)
        elif not isinstance(image, Image.Image):
            raise DataError(
                f"a {type(image).__name__} is not an image: pass a path, a file's bytes, a Pillow image or an array"
            )
        with decode.as_data_error(b""):
            image_file.check_size(image.width, image.height, self.spec.max_pixels)
        return decode.prepare(image, self.spec)


def _find_content(image: Any) -> Callable[[int], bytes] | None:
    """Return the function from max_bytes to the encoded bytes of an image, if it has any: it raises DecodeError.

    A Pillow image that was opened and not loaded yet is the file that it was opened from.
    """
    from PIL.ImageFile import ImageFile

    if isinstance(image, bytes):
        return lambda max_bytes: _check_length(image, max_bytes)
    if hasattr(image, "pack"):  # a file inside another, or in remote storage
        return functools.partial(read_image_bytes, image)
    if isinstance(image, str | Path):
        path = Path(image)
        if _is_piped_input(path):
            return functools.cache(functools.partial(_read_pipe, path))
        return functools.partial(read_image_bytes, path)
    is_unread = isinstance(image, ImageFile) and getattr(image, "_im", image) is None and image.fp is not None
    return functools.cache(functools.partial(_read_again, image)) if is_unread and image.tell() == 0 else None


def _is_piped_input(path: Path) -> bool:
    """Is it this process's standard input, and that a pipe? Other pipes are refused: they may never end."""
    try:
        about, own = os.stat(path), os.fstat(0)
    except OSError:
        return False
    return stat.S_ISFIFO(about.st_mode) and os.path.samestat(about, own)


def _read_pipe(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return _check_length(file.read(max_bytes + 1), max_bytes)
    except OSError as error:
        raise DecodeError(f"it cannot be read ({error.strerror or error})") from None


def _read_again(image: Any, max_bytes: int) -> bytes:
    with image_file.as_decode_error():
        position = image.fp.tell()
        image.fp.seek(0)
        content = image.fp.read(max_bytes + 1)
        image.fp.seek(position)
        return _check_length(content, max_bytes)


def _check_length(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise DecodeError(f"its bytes are more than data.max_bytes {max_bytes:,}")
    return content


def _from_array(pixels: np.ndarray[Any, Any], max_pixels: int) -> "Image":
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DataError(
            f"an array of {pixels.dtype} and shape {pixels.shape} is not an image: pass uint8 of H x W or H x W x 1, 3 "
            "or 4"
        )
    with decode.as_data_error(b""):
        image_file.check_size(pixels.shape[1], pixels.shape[0], max_pixels)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
