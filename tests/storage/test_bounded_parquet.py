"""Parquet files that expand, or lie about their sizes."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from classifier.storage import bounded_parquet
from classifier.storage.bounded_parquet import BoundedParquet


def open_file(path: Path) -> BoundedParquet:
    return BoundedParquet(fs.LocalFileSystem().open_input_file(str(path)))


def read(path: Path, *columns: str) -> pa.Table:
    file = open_file(path)
    return pa.Table.from_batches([batch for group in file.row_groups for batch in file.read_batches(group, columns)])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
def test_sound_files(compression: str, version: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": [{"bytes": random.Random(n).randbytes(3000), "path": f"{n}.png"} for n in range(700)],
            "label": [n % 3 for n in range(700)],
            "a.b": [["x"] * (n % 4) for n in range(700)],
        }
    )
    path = tmp_path / "set.parquet"
    pq.write_table(table, path, row_group_size=300, compression=compression, data_page_version=version)
    assert open_file(path).starts == [0, 300, 600, 700]
    for name in table.column_names:
        assert read(path, name).column(name).to_pylist() == table.column(name).to_pylist()


def test_pages_that_expand(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    table = pa.table({"image": pa.array([bytes(1 << 20)] * 150)})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, data_page_size=1 << 30)
    assert path.stat().st_size < 100_000
    with pytest.raises(OSError, match=r"one of its pages of [\d,]+ bytes expands to 157,[\d,]+"):
        read(path, "image")


def test_values_that_are_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_parquet, "FREE_BYTES", 1 << 20)
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": pa.array([bytes(10_000)] * 1000)}), path)
    with pytest.raises(OSError, match="a row group expands to more than 64 times its size"):
        read(path, "image")


def test_rows_that_are_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_parquet, "FREE_ROWS", 1000)
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"label": pa.array([1] * 100_000)}), path)
    with pytest.raises(OSError, match=r"it claims to have 100,000 rows in [\d,]+ bytes"):
        open_file(path)


def test_lists_that_repeat_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"label": [["x" * 10_000] * 300] * 10, "number": [[1] * 300] * 10}), path)
    labels = read(path, "label").column("label")
    assert labels.nbytes < 100_000  # three thousand values, one of which is stored
    assert labels.to_pylist() == [["x" * 10_000] * 300] * 10
    monkeypatch.setattr(bounded_parquet, "FREE_ROWS", 1000)
    monkeypatch.setattr(bounded_parquet, "MAX_VALUES_PER_BYTE", 1)
    with pytest.raises(OSError, match=r"a column claims to have 3,000 values in [\d,]+ bytes"):
        read(path, "number")


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    """Altered bytes, many of them in the page headers and the footer, end in an error or in other values."""
    path, rng = tmp_path / "set.parquet", random.Random(5)
    images = [rng.randbytes(40) for _ in range(50)]
    columns = {"image": images, "label": [n % 2 for n in range(50)]}
    table = pa.table(columns | {"labels": [["x"] * (n % 3) for n in range(50)]})
    pq.write_table(table, path, row_group_size=20, compression="snappy")
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        path.write_bytes(damaged)
        try:
            for name in table.column_names:
                read(path, name)
        except OSError:
            pass
