"""Parquet files that nobody vouches for, read in bounded memory.

A page of a few bytes may decompress to gigabytes, and a few pages may stand for billions of values. Arrow believes
both, so the sizes of all pages are compared to the bytes in the file before it sees them, and it gets few rows at
a time.
Format: github.com/apache/parquet-format.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_EXPANSION = 64
"""A page, or the values of a row group, may take this many times their bytes in the file."""
FREE_BYTES = 1 << 27
"""So much is always allowed."""
FREE_ROWS = 1_000_000
MAX_VALUES_PER_BYTE = 16
"""Values of lists that a file may have for each of its bytes."""
MAX_BATCH_ROWS = 4096
MAX_FOOTER_BYTES = 1 << 24
MAX_DEPTH = 16


@dataclass(frozen=True)
class _Chunk:
    """A column of a row group: where its pages are in the file, in bytes."""

    column: str
    start: int
    size: int


class BoundedParquet:
    """A Parquet file. OSError, here and in all methods, if it is corrupted or expands too much."""

    def __init__(self, file: Any) -> None:
        """file: open for random access."""
        self._file, self._size = file, file.size()
        with _translate_errors():
            with pq.ParquetFile(file) as parquet:
                self._metadata, self.schema = parquet.metadata, parquet.schema_arrow
            groups = self._read_footer()
            sizes = [rows for rows, _ in groups]
            if min(sizes, default=0) < 0 or sum(sizes) > max(FREE_ROWS, self._size):
                raise OSError(f"it claims to have {sum(sizes):,} rows in {self._size:,} bytes")
        self.starts = [0, *itertools.accumulate(sizes)]
        """The first row of each row group, and the number of rows."""
        self.row_groups = range(len(groups))
        self._chunks = [chunks for _, chunks in groups]

    def read_batches(self, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group, of these columns. Lists of text have dictionaries, as many share a value."""
        ranges, largest_page, lists = [], 1, []
        for chunk in self._chunks[group]:
            if chunk.column in columns or any(chunk.column.startswith(f"{column}.") for column in columns):
                content = self._file.read_at(chunk.size, chunk.start)
                with _translate_errors():
                    largest, values = _check_pages(content)
                if values > max(FREE_ROWS, MAX_VALUES_PER_BYTE * self._size):
                    raise OSError(f"a column claims to have {values:,} values in {self._size:,} bytes")
                largest_page = max(largest_page, largest)
                ranges.append((chunk.start, content))
                lists += [chunk.column] if self._is_list(chunk.column) else []
        allowed = max(FREE_BYTES, MAX_EXPANSION * sum(len(content) for _, content in ranges))
        view = pa.PythonFile(_View(ranges, self._size), mode="r")
        rows = used = 0
        # Any value is at most as large as a page, but all values of a page may share it.
        batch_rows = min(MAX_BATCH_ROWS, max(1, FREE_BYTES // largest_page))
        with (
            _translate_errors(),
            pq.ParquetFile(view, metadata=self._metadata, pre_buffer=False, read_dictionary=lists) as parquet,
        ):
            for batch in parquet.iter_batches(batch_rows, row_groups=[group], columns=list(columns)):
                rows, used = rows + batch.num_rows, used + batch.nbytes
                if used > allowed:
                    raise OSError(f"a row group expands to more than {MAX_EXPANSION} times its size in the file")
                yield batch
        if rows != self.starts[group + 1] - self.starts[group]:
            raise OSError("a row group has fewer rows than it claims")

    def _is_list(self, column: str) -> bool:
        """Return whether a column, as the file calls it, holds the values of lists."""
        return any(column.startswith(f"{one.name}.") and is_list_of_scalars(one.type) for one in self.schema)

    def _read_footer(self) -> list[tuple[int, list[_Chunk]]]:
        """Return the rows and the columns of each row group.

        Arrow's Python interface to these ends the process if the footer is corrupted in certain ways.
        """
        length = int.from_bytes(self._file.read_at(8, self._size - 8)[:4], "little")
        if length > min(MAX_FOOTER_BYTES, self._size - 8):
            raise OSError(f"its footer has {length:,} bytes")
        footer = _CompactReader(self._file.read_at(length, self._size - 8 - length)).read_struct()
        groups = []
        for group in footer.get(4, []):  # FileMetaData.row_groups
            chunks = []
            for about in (column[3] for column in group[1]):  # RowGroup.columns, ColumnChunk.meta_data
                # ColumnMetaData: path_in_schema, total_compressed_size, data_page_offset, dictionary_page_offset
                path, size, start, dictionary = about[3], about[7], about[9], about.get(11, 0)
                start = dictionary if 0 < dictionary < start else start
                if start < 0 or size < 0 or start + size > self._size:
                    raise OSError("a row group claims to be outside the file")
                chunks.append(_Chunk(b".".join(path).decode(), start, size))
            groups.append((group[3], chunks))  # RowGroup.num_rows
        return groups


@contextmanager
def _translate_errors() -> Iterator[None]:
    """OSError for all that damaged files raise, in Arrow and here."""
    try:
        yield
    except OSError:
        raise
    except (pa.ArrowException, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise OSError(str(error) if isinstance(error, pa.ArrowException) else "its structure is damaged") from None


def is_list_of_scalars(kind: pa.DataType) -> bool:
    """Return whether the values of a column are lists of text, numbers and the like."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and not pa.types.is_nested(kind.value_type)


def _check_pages(content: bytes) -> tuple[int, int]:
    """Return the size of the largest page in these bytes, when decompressed, and the number of values in all.

    OSError if a page is out of proportion.
    """
    reader, largest, values = _CompactReader(content), 0, 0
    while reader.position < len(content):
        header = reader.read_struct()
        expanded, size = header[2], header[3]  # PageHeader: uncompressed_page_size, compressed_page_size
        if expanded < 0 or size < 0:
            raise OSError("it has a page of negative size")
        if expanded > max(FREE_BYTES, MAX_EXPANSION * size):
            raise OSError(f"one of its pages of {size:,} bytes expands to {expanded:,}")
        largest = max(largest, expanded)
        values += (header.get(5) or header.get(8) or {}).get(1, 0)  # DataPageHeader, DataPageHeaderV2: num_values
        reader.position += size
    return largest, values


class _CompactReader:
    """Reads structs in Thrift's compact protocol, in which footers and page headers are written."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        """Return its fields by number. OSError if it is none."""
        fields: dict[int, Any] = {}
        number = 0
        while (head := self.skip(1)[0]) & 15:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def skip(self, count: int) -> bytes:
        """Return the next bytes."""
        self.position += count
        if self.position > len(self.content):
            raise OSError("it is truncated")
        return self.content[self.position - count : self.position]

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self.skip(1)[0]
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):  # a double, or bytes
            return self.skip(8 if kind == 7 else self._varint())
        if depth > MAX_DEPTH:
            raise OSError("its structure is too deep")
        if kind in (9, 10):  # a list, or a set
            head = self.skip(1)[0]
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == 12:
            return self.read_struct(depth + 1)
        raise OSError("its structure is damaged")

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self.skip(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise OSError("its structure is damaged")

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
