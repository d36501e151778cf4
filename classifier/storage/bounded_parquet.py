"""Parquet files that nobody vouches for, read in bounded memory.

A page of a few bytes may decompress to gigabytes, and a few pages may stand for billions of values. Arrow believes
both, so the sizes of all pages are compared to the bytes in the file before it sees them, and it gets few rows at
a time.
Format: github.com/apache/parquet-format.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_EXPANSION = 64
"""A page, or the values of a row group, may take this many times their bytes in the file."""
FREE_BYTES = 1 << 27
"""So much is always allowed."""
FREE_ROWS = 1_000_000
MAX_BATCH_ROWS = 4096


class BoundedParquet:
    """A Parquet file. ArrowException or OSError, here and in all methods, if it is corrupted or expands too much."""

    def __init__(self, file: Any) -> None:
        """file: open for random access."""
        self._file, self._size = file, file.size()
        with pq.ParquetFile(file) as parquet:
            self.metadata, self.schema = parquet.metadata, parquet.schema_arrow
        sizes = [self.metadata.row_group(n).num_rows for n in range(self.metadata.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) > max(FREE_ROWS, self._size):
            raise OSError(f"it claims to have {sum(sizes):,} rows in {self._size:,} bytes")
        self.starts = [0, *itertools.accumulate(sizes)]
        """The first row of each row group, and the number of rows."""

    def read_batches(self, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group, of these columns."""
        ranges, largest_page = [], 1
        row_group = self.metadata.row_group(group)
        for chunk in map(row_group.column, range(row_group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in columns or chunk.path_in_schema in columns:
                start, content = self._read_chunk(chunk)
                largest_page = max(largest_page, _check_pages(content))
                ranges.append((start, content))
        allowed = max(FREE_BYTES, MAX_EXPANSION * sum(len(content) for _, content in ranges))
        view = pa.PythonFile(_View(ranges, self._size), mode="r")
        rows = used = 0
        # Any value is at most as large as a page, but all values of a page may share it.
        batch_rows = min(MAX_BATCH_ROWS, max(1, FREE_BYTES // largest_page))
        with pq.ParquetFile(view, metadata=self.metadata, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=list(columns)):
                rows, used = rows + batch.num_rows, used + batch.nbytes
                if used > allowed:
                    raise OSError(f"a row group expands to more than {MAX_EXPANSION} times its size in the file")
                yield batch
        if rows != self.starts[group + 1] - self.starts[group]:
            raise OSError("a row group has fewer rows than it claims")

    def _read_chunk(self, chunk: Any) -> tuple[int, bytes]:
        """Return the position and the bytes of a column of a row group."""
        start, size = chunk.data_page_offset, chunk.total_compressed_size
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        if start < 0 or size < 0 or start + size > self._size:
            raise OSError("a row group claims to be outside the file")
        return start, self._file.read_at(size, start)


def _check_pages(content: bytes) -> int:
    """Return the size of the largest page in these bytes, when decompressed. OSError if it is out of proportion."""
    position = largest = 0
    while position < len(content):
        reader = _CompactReader(content, position)
        fields = reader.read_struct()
        # PageHeader: 2 is uncompressed_page_size, 3 is compressed_page_size.
        expanded, size = fields.get(2), fields.get(3)
        if not isinstance(expanded, int) or not isinstance(size, int) or expanded < 0 or size < 0:
            raise OSError("it has a page without a size")
        if expanded > max(FREE_BYTES, MAX_EXPANSION * size):
            raise OSError(f"one of its pages of {size:,} bytes expands to {expanded:,}")
        largest = max(largest, expanded)
        position = reader.position + size
    return largest


class _CompactReader:
    """Reads a struct in Thrift's compact protocol, in which page headers are written."""

    def __init__(self, content: bytes, position: int) -> None:
        self.content, self.position = content, position

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the integers among its fields, by number. OSError if it is none."""
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> int | None:
        if kind in (1, 2):  # booleans, whose value is in the type
            return None
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):  # a double, or bytes
            self._skip(8 if kind == 7 else self._varint())
        elif kind in (9, 10):
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._skip(1) if head & 15 in (1, 2) else self._value(head & 15, depth + 1)
        elif kind == 12 and depth < 8:
            self.read_struct(depth + 1)
        else:  # page headers have no maps
            raise OSError("it has a page without a header")
        return None

    def _byte(self) -> int:
        self._skip(1)
        return self.content[self.position - 1]

    def _skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self.content):
            raise OSError("one of its pages is truncated")

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise OSError("it has a page without a header")

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


class _View(io.RawIOBase):
    """A file of which only a few ranges can be read: those whose pages were checked."""

    def __init__(self, ranges: list[tuple[int, bytes]], size: int) -> None:
        self._ranges, self._size, self._position = ranges, size, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        for start, content in self._ranges:
            if start <= self._position < start + len(content):
                first = self._position - start
                part = content[first:] if size < 0 else content[first : first + size]
                self._position += len(part)
                return part
        return b""

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
