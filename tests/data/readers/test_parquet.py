"""Parquet tables that contain the images, in the layout of Hugging Face's datasets."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.readers import parquet
from classifier.data.split import UNASSIGNED
from classifier.data.split_names import TEST, TRAIN
from classifier.errors import DataError

NAMES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}


@pytest.fixture
def image_bytes(paint, tmp_path: Path) -> list[bytes]:
    return [paint(tmp_path / "paint" / f"{n}.png").read_bytes() for n in range(24)]


def table(path: Path, image_bytes, labels, *, names=True, column="image", **more) -> Path:
    images = pa.array(
        [None if p is None else {"bytes": p, "path": f"{n}.png"} for n, p in enumerate(image_bytes)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    made = pa.table({column: images, "label": labels} | more)
    if names:
        made = made.replace_schema_metadata({"huggingface": json.dumps(NAMES)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, row_group_size=5)
    return path


def test_the_layout_of_hugging_face(image_bytes, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    labels = [n % 2 for n in range(24)]
    table(folder / "data" / "train-00000-of-00002.parquet", image_bytes[:10], labels[:10])
    table(folder / "data" / "train-00001-of-00002.parquet", image_bytes[10:20], labels[10:20])
    table(folder / "data" / "test-00000-of-00001.parquet", image_bytes[20:], labels[20:])
    source = data.open_source(DataConfig(path=str(folder)))
    assert source.class_names == ("cat", "dog")
    assert source.splits_N.tolist() == [TEST] * 4 + [TRAIN] * 20
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda file: file.read_bytes(), source.images))
    assert read == image_bytes[20:] + image_bytes[:20]
    assert not source.findings
    (folder / "more" / "cat").mkdir(parents=True)
    (folder / "more" / "cat" / "1.png").write_bytes(image_bytes[0])
    beside = data.open_source(DataConfig(path=str(folder))).findings
    assert beside == ("1 images beside its .parquet files were left out: more/cat/1.png.",)
    loaded = data.load(DataConfig(path=str(folder)))
    assert loaded.counts["test"] == 4
    assert sum(loaded.counts.values()) == 24


def test_one_table(image_bytes, tmp_path: Path) -> None:
    path = table(tmp_path / "set.parquet", image_bytes, ["a", "b"] * 12, names=False, eye=[n // 4 for n in range(24)])
    source = data.open_source(DataConfig(path=str(path), group="eye"))
    assert source.class_names == ("a", "b")
    assert set(source.splits_N.tolist()) == {UNASSIGNED}
    assert source.groups == [str(n // 4) for n in range(24)]
    with pytest.raises(DataError, match=r"data\.group nose is no column \(image, label, eye\)"):
        data.open_source(DataConfig(path=str(path), group="nose"))
    pq.write_table(pa.table({"img": pa.array(image_bytes), "label": [n % 2 for n in range(24)]}), path)
    source = data.open_source(DataConfig(path=str(path)))
    assert source.class_names == ("0", "1")
    assert [file.read_bytes() for file in source.images] == image_bytes


def test_faults_are_reported_and_skipped(image_bytes, tmp_path: Path) -> None:
    labels = [0, 1, None, -1] + [n % 2 for n in range(20)]
    path = table(tmp_path / "set.parquet", [*image_bytes[:10], None, b"", b"no image", *image_bytes[13:]], labels)
    source = data.open_source(DataConfig(path=str(path)))
    assert source.findings == ("2 images have no label and were left out: set.parquet/2, set.parquet/3.",)
    loaded = data.load(DataConfig(path=str(path), max_corrupt=0.2))
    reasons = {flaw["id"]: flaw["reason"] for flaw in loaded.split_record["unreadable"]}
    assert reasons == {
        "set.parquet/10": "it cannot be read (its table has no bytes for it)",
        "set.parquet/11": "the file is empty",
        "set.parquet/12": "it is not an image, or its format is unknown",
    }


@pytest.mark.parametrize(
    ("column", "class_names"),
    [
        (pa.array([10, 9] * 12), ("9", "10")),
        (pa.array([10.0, 9.0] * 12, pa.float32()), ("9", "10")),
        (pa.array([Decimal("10.0"), Decimal("9.0")] * 12), ("9", "10")),
        (pa.array([b"10", b"9"] * 12), ("9", "10")),
        (pa.array(["b", "a"] * 12).dictionary_encode(), ("a", "b")),
        (pa.array([True, False] * 12), ("False", "True")),
        (pa.array([0.1, 0.5] * 12, pa.float32()), ("0.1", "0.5")),
        (pa.array([-1, 1] * 12), ("-1", "1")),
    ],
)
def test_labels_of_any_type(column: pa.Array, class_names: tuple[str, ...], image_bytes, tmp_path: Path) -> None:
    path = table(tmp_path / "set.parquet", image_bytes, column, names=False)
    source = parquet.read_parquet([path])
    assert source.class_names == class_names
    assert source.labels_N.tolist() == [class_names.index(source.class_names[k]) for k in source.labels_N]


@pytest.mark.parametrize(
    ("column", "lists"),
    [
        (pa.array([[0, 3], [1]] * 12), [(0, 2), (1,)]),
        (pa.array([["cat"], ["cat", "dog"]] * 12), [(0,), (0, 1)]),
        (pa.array([["cat", "dog"], []] * 12), [(0, 1), ()]),
        (pa.array([[0, 2], [1, 0]] * 12, pa.list_(pa.int8(), 2)), [(0, 2), (0, 1)]),
    ],
)
def test_several_labels(column: pa.Array, lists: list[tuple[int, ...]], image_bytes, tmp_path: Path) -> None:
    source = parquet.read_parquet([table(tmp_path / "set.parquet", image_bytes, column, names=False)])
    assert source.label_sets is not None
    assert [source.label_sets[m] for m in source.labels_N[:2]] == lists
    assert "multilabel (--data.task)" in source.findings[-1]


def test_a_column_for_each_class(image_bytes, tmp_path: Path) -> None:
    dogs = ([0, 1] * 12, [0, 0] * 12)
    for n, dog in enumerate(dogs):
        made = pa.table({"image": pa.array(image_bytes), "cat": [1] * 24, "dog": dog, "width": [*range(24)]})
        pq.write_table(made, tmp_path / f"{n}.parquet")
    source = parquet.read_parquet([tmp_path / "0.parquet", tmp_path / "1.parquet"])
    assert source.class_names == ("cat", "dog")
    assert source.label_sets == ((0,), (0, 1))
    assert source.labels_N.tolist() == [0, 1] * 12 + [0] * 24
    assert any("the classes are its 2 columns of 0 and 1, without width" in finding for finding in source.findings)
    pq.write_table(
        pa.table({"image": pa.array(image_bytes), "owl": [1, 0] * 12, "dog": dogs[1]}), tmp_path / "1.parquet"
    )
    with pytest.raises(DataError, match=r"1\.parquet has other columns of 0 and 1 than .*0\.parquet"):
        parquet.read_parquet([tmp_path / "0.parquet", tmp_path / "1.parquet"])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"id": 1}, {"id": 2}] * 12),
        pa.array([[("a", 1)], [("b", 1)]] * 12, pa.map_(pa.string(), pa.int8())),
        pa.array([[["a"]], [["b"]]] * 12),
    ],
)
def test_labels_in_structures_are_refused(column: pa.Array, image_bytes, tmp_path: Path) -> None:
    for names in (False, True):
        with pytest.raises(DataError, match=r"the column label has structures instead of values"):
            parquet.read_parquet([table(tmp_path / "set.parquet", image_bytes, column, names=names)])


def test_class_names_in_metadata_are_no_lists(image_bytes, tmp_path: Path) -> None:
    names = ["tench, Tinca tinca", "Tinca tinca, tench", "cat;dog", "cat"]
    path = tmp_path / "set.parquet"
    made = pa.table({"image": pa.array(image_bytes), "label": [n % 4 for n in range(24)]})
    about = {"info": {"features": {"label": {"names": names}}}}
    pq.write_table(made.replace_schema_metadata({"huggingface": json.dumps(about)}), path)
    assert set(parquet.read_parquet([path]).class_names) == set(names)


def test_hidden_labels_of_a_split(image_bytes, tmp_path: Path) -> None:
    table(tmp_path / "set" / "train.parquet", image_bytes[:20], [n % 2 for n in range(20)], names=False)
    table(tmp_path / "set" / "test.parquet", image_bytes[20:], [-1] * 4, names=False)
    source = data.open_source(DataConfig(path=str(tmp_path / "set")))
    assert source.class_names == ("0", "1")
    assert source.findings == ("4 images have no label (-1, like all of their split) and were left out.",)


def test_a_table_that_expands_to_gigabytes(tmp_path: Path) -> None:
    """A dictionary with one image of a megabyte, which 4,000 rows share, in a few kilobytes."""
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array([bytes(1 << 20)]))
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 2000}), path, store_schema=False)
    assert path.stat().st_size < 100_000
    source = parquet.read_parquet([path])
    with pytest.raises(OSError, match="corrupted in its table: a row group expands to more than 64 times"):
        source.images[0].read_bytes()


def test_errors(image_bytes, tmp_path: Path) -> None:
    path = table(tmp_path / "set.parquet", image_bytes[:2], [0, 2])
    with pytest.raises(DataError, match=r"row 2: the label 2 is none of the 2 classes"):
        parquet.read_parquet([path])
    pq.write_table(pa.table({"image": pa.array(image_bytes), "kind": [1] * 24}), path)
    with pytest.raises(DataError, match=r"there is no column label, only image, kind"):
        parquet.read_parquet([path])
    (tmp_path / "set.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="is not a Parquet table, or corrupted"):
        parquet.read_parquet([path])
