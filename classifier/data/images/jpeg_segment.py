"""A segment of the cache whose rows are JPEGs: a fifth of the room that their pixels take, for sets that are too large.

While it is made it is a file of frames, to which every process appends whole ones: the row, the length, the sums of the
pixels as they were, the JPEG. This module imports no torch, as draft.py.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from classifier.data.images.pixel_segment import DIGEST, SHAPE, SUMS, PixelSegmentWriter, lines, sums_of_last, whole

JPEG, QUALITY = "jpeg", 95
_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class JpegSegmentWriter:
    """What `Draft` is to pixels."""

    path: Path
    shape: tuple[int, int, int]

    @classmethod
    def begin(cls, path: Path, count: int, shape: tuple[int, int, int]) -> "JpegSegmentWriter":
        """An empty file. OSError if it cannot be made."""
        path.write_bytes(b"")
        return cls(path, shape)

    @classmethod
    def named(cls, words: Sequence[str]) -> "JpegSegmentWriter":
        """The inverse of `words`, without the first: the same file in another process."""
        c, h, w = map(int, words[1:])
        return cls(Path(words[0]), (c, h, w))

    def words(self) -> list[str]:
        """What names it to another process; see `reopened`."""
        return [JPEG, str(self.path), *map(str, self.shape)]

    def put(self, row: int, pixels_CHW: np.ndarray) -> None:
        """Write a picture, uint8, into its row. OSError if the disk is full."""
        pixels_HWC = np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
        colours = "GRAY" if self.shape[0] == 1 else "RGB"
        content = simplejpeg.encode_jpeg(pixels_HWC, QUALITY, colours, "444" if colours == "RGB" else "Gray")
        sums = sums_of_last(pixels_HWC[lines(len(pixels_HWC))])
        frame = _HEAD.pack(row, len(content)) + sums.tobytes() + content
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            whole(os.write(file, frame), len(frame))
        finally:
            os.close(file)

    def finish(self, digests: dict[int, bytes]) -> None:
        """Make it a segment of the rows that are named here, in their order."""
        import pyarrow as pa

        frames, found, place = np.memmap(self.path, np.uint8, "r"), {}, 0
        sums_bytes = 16 * self.shape[0]
        while place < len(frames):
            row, length = _HEAD.unpack(frames[place : place + _HEAD.size].tobytes())
            start = place + _HEAD.size
            place = start + sums_bytes + length
            found[row] = start, start + sums_bytes, place
        rows = sorted(digests)
        contents = [frames[found[row][1] : found[row][2]] for row in rows]
        ends_N = np.cumsum([0, *map(len, contents)], dtype=np.int64)
        sums = b"".join(frames[found[row][0] : found[row][1]].tobytes() for row in rows)
        columns = {
            JPEG: (pa.large_binary(), [None, pa.py_buffer(ends_N), pa.py_buffer(np.concatenate(contents))]),
            DIGEST: (pa.binary(16), [None, pa.py_buffer(b"".join(digests[row] for row in rows))]),
            SUMS: (pa.binary(sums_bytes), [None, pa.py_buffer(sums)]),
        }
        arrays = [pa.Array.from_buffers(kind, len(rows), buffers) for kind, buffers in columns.values()]
        batch = pa.record_batch(arrays, names=[*columns]).replace_schema_metadata({SHAPE: json.dumps(self.shape)})
        made = self.path.with_name(f"{self.path.name}.arrow.part")
        try:
            with pa.OSFile(str(made), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            os.replace(made, self.path)
        finally:
            made.unlink(missing_ok=True)


def reopened(words: Sequence[str]) -> PixelSegmentWriter | JpegSegmentWriter:
    """What these words of it name, in another process."""
    return JpegSegmentWriter.named(words[1:]) if words[0] == JPEG else PixelSegmentWriter.named(words[1:])


def decoded_into(content: np.ndarray, pixels_CHW: np.ndarray) -> None:
    """A row's JPEG into its place. ValueError if it is damaged."""
    channels = len(pixels_CHW)
    pixels_HWC = pixels_CHW.transpose(1, 2, 0)
    if channels > 1 and pixels_HWC.flags.c_contiguous:
        simplejpeg.decode_jpeg(content, "RGB", buffer=pixels_HWC)
    else:
        pixels_HWC[...] = simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
