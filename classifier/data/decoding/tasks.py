"""What is done with an image's bytes: the same function in a thread of this process and in one that can be killed."""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from classifier.data.decoding import decode, image_file
from classifier.data.decoding.decode import Measurement
from classifier.data.decoding.image_file import Admit
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.image_stats import compute_image_stats
from classifier.data.images.jpeg_segment import open_writer

_ROW, _MEASUREMENT = struct.Struct("<I"), struct.Struct("<II?B")


@dataclass(frozen=True)
class Task:
    """A name of TASKS and its arguments. max_pixels: of an image; more are refused, and limit the memory."""

    words: tuple[str, ...]
    max_pixels: int

    @classmethod
    def pixels(cls, spec: ImageSpec) -> "Task":
        """Reply with the pixels, uint8 channels x size x size."""
        return cls(("pixels", *spec.to_words()), spec.max_pixels)

    @classmethod
    def rows(cls, spec: ImageSpec, writer: Sequence[str]) -> "Task":
        """Write the pixels into a segment, given as its `to_words`, and reply with nothing. See `address`."""
        return cls(("rows", *spec.to_words(), *writer), spec.max_pixels)

    @classmethod
    def stats(cls, max_pixels: int) -> "Task":
        """Reply with packed ImageStats."""
        return cls(("stats", str(max_pixels)), max_pixels)

    @classmethod
    def measure(cls, max_pixels: int) -> "Task":
        """Reply with a Measurement: see `unpack_measurement`."""
        return cls(("measure", str(max_pixels)), max_pixels)

    @classmethod
    def thumbnail(cls, size: int, max_pixels: int) -> "Task":
        """Reply with a JPEG, shrunk until no side is longer than `size`."""
        return cls(("thumbnail", str(size), str(max_pixels)), max_pixels)

    def open(self, admit: Admit, *, is_fast: bool = False) -> Callable[[bytes], bytes]:
        """Return the function from an image's bytes to a reply. It raises DecodeError, and what `admit` raises.

        is_fast: decode common JPEGs by torch, which decoding processes do without.
        """
        return TASKS[self.words[0]](admit, is_fast, *self.words[1:])


def address(row: int, content: bytes) -> bytes:
    """Return what the task `rows` takes: an image's bytes, and the row that they go to."""
    return _ROW.pack(row) + content


def unpack_measurement(reply: bytes) -> Measurement:
    return Measurement(*_MEASUREMENT.unpack(reply))


def _pixels(admit: Admit, is_fast: bool, *spec: str) -> Callable[[bytes], bytes]:
    image_spec = ImageSpec.from_words(spec)
    if is_fast:
        return lambda content: decode.decode_bytes(content, image_spec, admit).tobytes()
    return lambda content: decode.decode_general(content, image_spec, admit).tobytes()


def _rows(
    admit: Admit, _: bool, size: str, channels: str, fit: str, max_pixels: str, *writer: str
) -> Callable[[bytes], bytes]:
    spec, segment = ImageSpec.from_words((size, channels, fit, max_pixels)), open_writer(writer)

    def write(content: bytes) -> bytes:
        (row,) = _ROW.unpack_from(content)
        segment.write(row, decode.decode_general(content[_ROW.size :], spec, admit))
        return b""

    return write


def _stats(admit: Admit, _: bool, max_pixels: str) -> Callable[[bytes], bytes]:
    return lambda content: compute_image_stats(content, max_pixels=int(max_pixels), admit=admit).pack()


def _measure(admit: Admit, _: bool, max_pixels: str) -> Callable[[bytes], bytes]:
    limit = int(max_pixels)
    return lambda content: _MEASUREMENT.pack(*decode.measure_image(content, max_pixels=limit, admit=admit))


def _thumbnail(admit: Admit, _: bool, size: str, max_pixels: str) -> Callable[[bytes], bytes]:
    side, limit = int(size), int(max_pixels)

    def shrink(content: bytes) -> bytes:
        image = image_file.open_file(content, max_pixels=limit, min_side=side, admit=admit).image
        image.thumbnail((side, side), Image.Resampling.BOX)
        stream = io.BytesIO()
        image.convert("RGB").save(stream, "JPEG", quality=80)
        return stream.getvalue()

    return shrink


TASKS: dict[str, Callable[..., Callable[[bytes], bytes]]] = {
    "pixels": _pixels,
    "rows": _rows,
    "stats": _stats,
    "measure": _measure,
    "thumbnail": _thumbnail,
}
