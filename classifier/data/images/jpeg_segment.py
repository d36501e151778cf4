"""A cache segment whose rows are JPEGs: for data sets that are too large as pixels, in a fifth of the space.

Under construction it is a file of frames, to which every process appends whole ones: the row, the length, the sums of
the pixels before compression, the hash of the JPEG, the JPEG. Like pixel_segment.py, this module imports no torch.
"""

import itertools
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from classifier.data.images.pixel_segment import (
    DIGEST,
    HASH,
    SHAPE,
    SUMS,
    PixelSegmentWriter,
    check_written,
    sum_channels_last,
    summed_lines,
)
from classifier.data.images.row_hash import HASH_BYTES, hash_row

JPEG, QUALITY = "jpeg", 95
_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class JpegSegmentWriter:
    """Writes images as JPEGs; see PixelSegmentWriter."""

    path: Path
    shape: tuple[int, int, int]

    @classmethod
    def create(cls, path: Path, count: int, shape: tuple[int, int, int]) -> "JpegSegmentWriter":
        """Create an empty file. OSError if that fails."""
        path.write_bytes(b"")
        return cls(path, shape)

    @classmethod
    def from_words(cls, words: Sequence[str]) -> "JpegSegmentWriter":
        """Return the writer that `to_words` described, whose first word is left out."""
        c, h, w = map(int, words[1:])
        return cls(Path(words[0]), (c, h, w))

    def to_words(self) -> list[str]:
        """The arguments that describe this writer to another process; see `open_writer`."""
        return [JPEG, str(self.path), *map(str, self.shape)]

    def write(self, row: int, pixels_CHW: np.ndarray) -> None:
        """Write an image, uint8, into its row. OSError if the disk is full."""
        pixels_HWC = np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
        colours = "GRAY" if self.shape[0] == 1 else "RGB"
        content = simplejpeg.encode_jpeg(pixels_HWC, QUALITY, colours, "444" if colours == "RGB" else "Gray")
        sums = sum_channels_last(pixels_HWC[summed_lines(len(pixels_HWC))])
        frame = _HEAD.pack(row, len(content)) + sums.tobytes() + hash_row(np.frombuffer(content, np.uint8)) + content
        with self.path.open("ab", buffering=0) as file:
            check_written(file.write(frame), len(frame))

    def finish(self, digests: dict[int, bytes]) -> None:
        """Turn the file into a segment of the rows that have a digest here, in their order."""
        import pyarrow as pa

        frames, found, offset = np.asarray(np.memmap(self.path, np.uint8, "r")), {}, 0
        sums_bytes = 16 * self.shape[0]
        while offset < len(frames):
            row, length = _HEAD.unpack(frames[offset : offset + _HEAD.size].tobytes())
            parts = offset + _HEAD.size + np.cumsum([0, sums_bytes, HASH_BYTES, length])
            found[row] = [frames[start:end] for start, end in itertools.pairwise(parts.tolist())]
            offset = int(parts[-1])
        rows = sorted(digests)
        sums, hashes, contents = ([found[row][part] for row in rows] for part in range(3))
        ends_N = np.cumsum([0, *map(len, contents)], dtype=np.int64)
        columns = {
            JPEG: (pa.large_binary(), [None, pa.py_buffer(ends_N), pa.py_buffer(np.concatenate(contents))]),
            DIGEST: (pa.binary(16), [None, pa.py_buffer(b"".join(digests[row] for row in rows))]),
            SUMS: (pa.binary(sums_bytes), [None, pa.py_buffer(np.concatenate(sums))]),
            HASH: (pa.binary(HASH_BYTES), [None, pa.py_buffer(np.concatenate(hashes))]),
        }
        arrays = [pa.Array.from_buffers(kind, len(rows), buffers) for kind, buffers in columns.values()]
        batch = pa.record_batch(arrays, names=[*columns]).replace_schema_metadata({SHAPE: json.dumps(self.shape)})
        temporary = self.path.with_name(f"{self.path.name}.arrow.part")
        try:
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)


def open_writer(words: Sequence[str]) -> PixelSegmentWriter | JpegSegmentWriter:
    """Open, in another process, the writer that these `to_words` describe."""
    return JpegSegmentWriter.from_words(words[1:]) if words[0] == JPEG else PixelSegmentWriter.from_words(words[1:])


def decode_into(content: np.ndarray, pixels_CHW: np.ndarray) -> None:
    """Decode a row's JPEG into pixels_CHW. ValueError if it is corrupted."""
    channels = len(pixels_CHW)
    pixels_HWC = pixels_CHW.transpose(1, 2, 0)
    if channels > 1 and pixels_HWC.flags.c_contiguous:
        simplejpeg.decode_jpeg(content, "RGB", buffer=pixels_HWC)
    else:
        pixels_HWC[...] = simplejpeg.decode_jpeg(content, "GRAY" if channels == 1 else "RGB")
