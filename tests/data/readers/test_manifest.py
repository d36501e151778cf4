"""Manifests: what they may say, and what is wrong with them, by line."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.data.readers.manifest import read_manifest
from classifier.data.readers.source import Source
from classifier.data.split_names import DRAWN, TEST, TRAIN, VALIDATION
from classifier.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path, paint) -> Path:
    for name in ("a.png", "b.png", "deep/c.png", "deep/d, e.png"):
        paint(tmp_path / "pictures" / name)
    return tmp_path


def csv(folder: Path, text: str, name: str = "set.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "set.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def rows(source: Source) -> list[tuple[str, str, int]]:
    names = [source.class_names[k] for k in source.labels_N.tolist()]
    return list(zip(source.ids, names, source.splits_N.tolist(), strict=True))


def test_csv(pictures: Path) -> None:
    text = (
        'path,label\npictures/a.png,cat\npictures/b.png,dog\n\npictures/deep/c.png,cat\n"pictures/deep/d, e.png",dog\n'
    )
    source = read_manifest(csv(pictures, text))
    assert source.name == "set"
    assert source.class_names == ("cat", "dog")
    assert rows(source) == [
        ("pictures/a.png", "cat", DRAWN),
        ("pictures/b.png", "dog", DRAWN),
        ("pictures/deep/c.png", "cat", DRAWN),
        ("pictures/deep/d, e.png", "dog", DRAWN),
    ]
    assert all(Path(str(path)).is_file() for path in source.images)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_splits_other_columns_and_ways_to_save(ending: str, mark: str, pictures: Path) -> None:
    lines = ["label,width,split,path", "cat,12,train,pictures/a.png", "dog,12,Val,pictures/./b.png"]
    lines += [f"cat,12,test,{pictures}/pictures/deep/c.png", "dog,12,,pictures/deep/../deep/d%2C e.png"]
    (pictures / "pictures" / "deep" / "d, e.png").rename(pictures / "pictures" / "deep" / "d%2C e.png")
    assert rows(read_manifest(csv(pictures, mark + ending.join(lines)))) == [
        ("pictures/a.png", "cat", TRAIN),
        ("pictures/b.png", "dog", VALIDATION),
        ("pictures/deep/c.png", "cat", TEST),
        ("pictures/deep/d%2C e.png", "dog", DRAWN),
    ]


def test_tabs_and_pictures_outside(pictures: Path) -> None:
    folder = pictures / "lists"
    folder.mkdir()
    manifest = csv(folder, "path\tlabel\n../pictures/a.png\tcat\n../pictures/b.png\tdog\n", "set.tsv")
    with pytest.raises(DataError, match=r"line 2: \.\./pictures/a\.png leads out of .*--data\.outside true"):
        read_manifest(manifest)
    source = read_manifest(manifest, outside=True)
    assert source.ids[0] == (pictures / "pictures" / "a.png").as_posix()


def test_parquet(pictures: Path) -> None:
    paths = ["pictures/a.png", "pictures/b.png", "pictures/deep/c.png"]
    manifest = parquet(
        pictures, path=paths, label=["cat", "dog", "cat"], split=["train", None, "test"], other=[1, 2, 3]
    )
    assert rows(read_manifest(manifest)) == [(paths[0], "cat", TRAIN), (paths[1], "dog", DRAWN), (paths[2], "cat", TEST)]
    manifest = parquet(pictures, path=paths, label=pa.array(["cat", "dog", "cat"]).dictionary_encode())
    assert read_manifest(manifest).class_names == ("cat", "dog")
    manifest = parquet(pictures, path=paths, label=[10, 9, 10])
    assert read_manifest(manifest).class_names == ("9", "10")


A, B = "pictures/a.png,cat", "pictures/b.png,dog"
WRONG = {
    "no label column": ("path,class\n" + A, r"set\.csv line 1: there is no column label \(only path, class\): name it"),
    "no path column": ("file,label\n" + A, r"line 1: there is no column path"),
    "nothing": ("", r"line 1: there is no column path \(only none\)"),
    "column twice": ("path,label,label\n", r"the column label stands there twice"),
    "only a head": ("path,label\n", r"set\.csv lists no pictures"),
    "missing file": (
        f"path,label\n{A}\npictures/x.png,dog",
        r"set\.csv line 3: pictures/x\.png does not exist: correct",
    ),
    "a folder": (f"path,label\n{A}\npictures,dog", r"line 3: pictures is a folder"),
    "no path": (f"path,label\n{A}\n,dog", r"line 3 has no path"),
    "no label": (f"path,label\n{A}\npictures/b.png,", r"line 3 has no label"),
    "few values": (f"path,label\n{A}\npictures/b.png", r"line 3 has 1 values, its first line 2"),
    "many values": (f"path,label\n{A}\npictures/deep/d, e.png,dog", r"line 3 has 3 values, its first line 2"),
    "split": ("path,label,split\npictures/a.png,cat,dev", r"line 2: unknown split 'dev': write train, val, valid"),
    "blank split": ("path,label,split\npictures/a.png,cat,train ", r"line 2: unknown split 'train '"),
    "two labels": (
        f"path,label\n{A}\n{B}\npictures/a.png,dog",
        r"line 4: pictures/a\.png has two labels, 'cat' \(line 2\) and 'dog': keep one",
    ),
    "another spelling": (f"path,label\n{A}\n./pictures/a.png,dog", r"line 3: \./pictures/a\.png has two labels"),
    "twice": (
        f"path,label\n{A}\n{B}\n{A}",
        r"line 4: pictures/a\.png is listed already \(line 2\): keep one of the two",
    ),
    "list by ;": ("path,label\npictures/a.png,cat;dog", r"line 2 has several labels \(cat;dog\): keep one"),
    "list by |": ("path,label\npictures/a.png,cat|dog", r"line 2 has several labels"),
    "list in brackets": ("path,label\npictures/a.png,\"['cat', 'dog']\"", r"line 2 has several labels"),
    "case": (f"path,label\n{A}\npictures/b.png,Cat", r"the labels 'Cat' and 'cat' differ only by case or blanks"),
    "blanks": (f"path,label\n{A}\npictures/b.png, cat", r"the labels ' cat' and 'cat' differ only by case or blanks"),
    "open quote": (f'path,label\n{A}\n"pictures/b.png,dog', r"set\.csv is no CSV table"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str, pictures: Path) -> None:
    text, reason = WRONG[name]
    with pytest.raises(DataError, match=reason) as caught:
        read_manifest(csv(pictures, text))
    assert "\n" not in str(caught.value)


def test_wrong_parquet(pictures: Path) -> None:
    paths = ["pictures/a.png", "pictures/b.png"]
    for labels in ([["cat", "dog"], ["cat"]], [{"cat": 1}, {"cat": 0}]):
        with pytest.raises(DataError, match=r"set\.parquet: the column label holds several labels an image"):
            read_manifest(parquet(pictures, path=paths, label=labels))
    with pytest.raises(DataError, match=r"row 2: pictures/x\.png does not exist"):
        read_manifest(parquet(pictures, path=["pictures/a.png", "pictures/x.png"], label=["cat", "dog"]))
    with pytest.raises(DataError, match=r"row 2 has no label"):
        read_manifest(parquet(pictures, path=paths, label=["cat", None]))
    with pytest.raises(DataError, match=r"set\.parquet: there is no column label \(only path, class\)"):
        read_manifest(parquet(pictures, **{"path": paths, "class": ["cat", "dog"]}))
    (pictures / "set.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"set\.parquet is no Parquet table, or damaged"):
        read_manifest(pictures / "set.parquet")


def test_other_files(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"set\.csv is not UTF-8 text: save it as UTF-8"):
        read_manifest(csv(pictures, "path,label\npictures/a.png,p\u00e4r", encoding="latin1"))
    with pytest.raises(DataError, match=r"set\.doc is no folder, archive .*, manifest .* or list"):
        read_manifest(csv(pictures, "PK", "set.doc"))


def test_lists(pictures: Path) -> None:
    source = read_manifest(csv(pictures, "pictures/a.png 3\npictures/b.png\t10\n\npictures/deep/d, e.png 3\n", "set.txt"))
    assert rows(source) == [
        ("pictures/a.png", "3", DRAWN),
        ("pictures/b.png", "10", DRAWN),
        ("pictures/deep/d, e.png", "3", DRAWN),
    ]
    source = read_manifest(csv(pictures, "0\t1.0\tpictures/a.png\n1\t2.0\tpictures/deep/d, e.png\n", "set.lst"))
    assert rows(source) == [("pictures/a.png", "1.0", DRAWN), ("pictures/deep/d, e.png", "2.0", DRAWN)]
    with pytest.raises(DataError, match=r"set\.txt line 2 must hold a path and its label"):
        read_manifest(csv(pictures, "pictures/a.png 3\npictures/b.png\n", "set.txt"))


def test_groups_come_from_a_column(pictures: Path) -> None:
    text = "path,label,patient\npictures/a.png,cat,7\npictures/b.png,dog,8\npictures/deep/c.png,cat,7\n"
    assert read_manifest(csv(pictures, text), group="patient").groups == ["7", "8", "7"]
    paths = ["pictures/a.png", "pictures/b.png"]
    assert read_manifest(parquet(pictures, path=paths, label=["cat", "dog"], p=[1, 2]), group="p").groups == ["1", "2"]
    with pytest.raises(DataError, match="there is no column eye"):
        read_manifest(csv(pictures, text), group="eye")
    with pytest.raises(DataError, match="line 3 has no patient"):
        read_manifest(csv(pictures, "path,label,patient\npictures/a.png,cat,7\npictures/b.png,dog,\n"), group="patient")
