"""Manifests, and errors that name the line."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.config.sections import DataConfig
from classifier.data.readers.detect import open_source
from classifier.data.readers.manifests.manifest import read_manifest
from classifier.data.readers.source import Source
from classifier.data.split_names import TEST, TRAIN, UNASSIGNED, VALIDATION
from classifier.errors import DataError


@pytest.fixture
def images(tmp_path: Path, paint) -> Path:
    for name in ("a.png", "b.png", "deep/c.png", "deep/d, e.png"):
        paint(tmp_path / "images" / name)
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


def test_csv(images: Path) -> None:
    text = 'path,label\nimages/a.png,cat\nimages/b.png,dog\n\nimages/deep/c.png,cat\n"images/deep/d, e.png",dog\n'
    source = read_manifest(csv(images, text))
    assert source.name == "set"
    assert source.class_names == ("cat", "dog")
    assert rows(source) == [
        ("images/a.png", "cat", UNASSIGNED),
        ("images/b.png", "dog", UNASSIGNED),
        ("images/deep/c.png", "cat", UNASSIGNED),
        ("images/deep/d, e.png", "dog", UNASSIGNED),
    ]
    assert all(Path(str(path)).is_file() for path in source.images)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_splits_other_columns_and_encodings(ending: str, mark: str, images: Path) -> None:
    lines = ["label,width,split,path", "cat,12,train,images/a.png", "dog,12,Val,images/./b.png"]
    lines += [f"cat,12,test,{images}/images/deep/c.png", "dog,12,,images/deep/../deep/d%2C e.png"]
    (images / "images" / "deep" / "d, e.png").rename(images / "images" / "deep" / "d%2C e.png")
    assert rows(read_manifest(csv(images, mark + ending.join(lines)))) == [
        ("images/a.png", "cat", TRAIN),
        ("images/b.png", "dog", VALIDATION),
        ("images/deep/c.png", "cat", TEST),
        ("images/deep/d%2C e.png", "dog", UNASSIGNED),
    ]


def test_tabs_and_images_outside(images: Path) -> None:
    folder = images / "lists"
    folder.mkdir()
    manifest = csv(folder, "path\tlabel\n../images/a.png\tcat\n../images/b.png\tdog\n", "set.tsv")
    with pytest.raises(DataError, match=r"line 2: \.\./images/a\.png leads out of .*--data\.outside true"):
        read_manifest(manifest)
    source = read_manifest(manifest, outside=True)
    assert source.ids[0] == (images / "images" / "a.png").as_posix()


def test_links_that_lead_outside(images: Path, tmp_path_factory: pytest.TempPathFactory, paint) -> None:
    elsewhere = paint(tmp_path_factory.mktemp("elsewhere") / "secret.png")
    (images / "images" / "folder").symlink_to(elsewhere.parent)
    (images / "images" / "file.png").symlink_to(elsewhere)
    (images / "images" / "inside.png").symlink_to("a.png")
    (images / "home").symlink_to(images / "images" / "deep")
    for path in ("images/folder/secret.png", "images/file.png", str(elsewhere), "home/../../../x.png"):
        manifest = csv(images, f"path,label\n{A}\n{path},dog\n")
        with pytest.raises(DataError, match=r"line 3: .* leads out of .*--data\.outside true"):
            read_manifest(manifest)
    assert len(read_manifest(csv(images, f"path,label\n{A}\nimages/file.png,dog\n"), outside=True).ids) == 2
    assert len(read_manifest(csv(images, "path,label\nimages/inside.png,cat\nhome/c.png,dog\n")).ids) == 2
    (images.parent / "link").symlink_to(images)  # the manifest's folder may be reached by a link
    assert len(read_manifest(csv(images.parent / "link", f"path,label\n{A}\n{B}\n")).ids) == 2


def test_paths_as_other_systems_write_them(images: Path, paint) -> None:
    paint(images / "caf\u00e9.png")
    text = f"path,label\nimages\\a.png,1\nfile://{images}/images/b.png,1\ncafe\u0301.png,2\nimages/deep/c.png ,2\n"
    assert [id_ for id_, _, _ in rows(read_manifest(csv(images, text)))] == [
        "images/a.png",
        "images/b.png",
        "caf\u00e9.png",
        "images/deep/c.png",
    ]


def test_parquet(images: Path) -> None:
    paths = ["images/a.png", "images/b.png", "images/deep/c.png"]
    manifest = parquet(images, path=paths, label=["cat", "dog", "cat"], split=["train", None, "test"], other=[1, 2, 3])
    assert rows(read_manifest(manifest)) == [
        (paths[0], "cat", TRAIN),
        (paths[1], "dog", UNASSIGNED),
        (paths[2], "cat", TEST),
    ]
    manifest = parquet(images, path=paths, label=pa.array(["cat", "dog", "cat"]).dictionary_encode())
    assert read_manifest(manifest).class_names == ("cat", "dog")
    manifest = parquet(images, path=paths, label=[10, 9, 10])
    assert read_manifest(manifest).class_names == ("9", "10")
    manifest = parquet(images, path=[path.encode() for path in paths], label=[b"cat", b"dog", b"cat"])
    assert rows(read_manifest(manifest))[1] == (paths[1], "dog", UNASSIGNED)
    manifest = parquet(images, path=paths, label=[b"cat", b"dog", b"cat"])  # labels in bytes are no images
    assert open_source(DataConfig(path=str(manifest))).class_names == ("cat", "dog")


def test_class_names_in_the_metadata_of_parquet(images: Path) -> None:
    manifest = parquet(images, path=["images/a.png", "images/b.png", "images/deep/c.png"], label=[0, 1, -1])
    about = {"info": {"features": {"label": {"names": ["cat, small", "dog"]}}}}
    pq.write_table(pq.read_table(manifest).replace_schema_metadata({"huggingface": json.dumps(about)}), manifest)
    source = read_manifest(manifest)
    assert [row[1] for row in rows(source)] == ["cat, small", "dog"]
    assert source.findings == ("1 images have no label and were left out: images/deep/c.png.",)


A, B = "images/a.png,cat", "images/b.png,dog"
WRONG = {
    "no label column": ("path,class\n" + A, r"set\.csv line 1: there is no column label \(only path, class\): rename"),
    "no path column": ("file,label\n" + A, r"line 1: there is no column path"),
    "nothing": ("", r"line 1: there is no column path \(only none\)"),
    "column twice": ("path,label,label\n", r"the column label appears twice"),
    "only a header": ("path,label\n", r"set\.csv lists no images"),
    "missing file": (
        f"path,label\n{A}\nimages/x.png,dog",
        r"set\.csv line 3: images/x\.png does not exist: correct",
    ),
    "a folder": (f"path,label\n{A}\nimages,dog", r"line 3: images is a folder"),
    "no path": (f"path,label\n{A}\n,dog", r"line 3 has no path"),
    "no label": ("path,label\nimages/a.png,\nimages/b.png, ", r"lists no images: none of its 2 lines has a label"),
    "few values": (f"path,label\n{A}\nimages/b.png", r"line 3 has 1 values, but the first line 2"),
    "many values": (f"path,label\n{A}\nimages/deep/d, e.png,dog", r"line 3 has 3 values, but the first line 2"),
    "split": ("path,label,split\nimages/a.png,cat,later", r"line 2: unknown split 'later': write train, val, valid"),
    "two splits": (
        f"path,label,split\n{A},train\n{B},\n./images/a.png,dog,test",
        r"line 4: \./images/a\.png has another split, group or column than before \(line 2\)",
    ),
    "twice": (
        f"path,label\n{A}\n{B}\n{A}",
        r"line 4: images/a\.png is listed already \(line 2\): keep one of the two",
    ),
    "no list": (f"path,label\n{A}\nimages/b.png,\"['cat', 'dog']\"", r"a\.png has the label 'cat', which is no list"),
    "a column without values": (
        "path,cat,dog,owl\nimages/a.png,0,1,\nimages/b.png,1,1,",
        "the column owl has no value",
    ),
    "a value missing": (
        "path,cat,dog\nimages/a.png,0,1\nimages/b.png,1,",
        r"set\.csv line 3 has no value of dog: write",
    ),
    "a class in few columns": ("path,cat\nimages/a.png,0\nimages/b.png,1", "there is no column label"),
    "case": (f"path,label\n{A}\nimages/b.png,Cat", r"the labels 'Cat' and 'cat' differ only by case:"),
    "blanks": (
        "path,label\nimages/a.png,big cat\nimages/b.png,bigcat",
        r"'big cat' and 'bigcat' differ only by blanks",
    ),
    "open quote": (f'path,label\n{A}\n"images/b.png,dog', r"set\.csv is not a CSV table"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_line(name: str, images: Path) -> None:
    text, reason = WRONG[name]
    with pytest.raises(DataError, match=reason) as caught:
        read_manifest(csv(images, text))
    assert "\n" not in str(caught.value)


def test_wrong_parquet(images: Path) -> None:
    paths = ["images/a.png", "images/b.png"]
    with pytest.raises(DataError, match=r"set\.parquet: the column label has structures instead of values \(struct"):
        read_manifest(parquet(images, path=paths, label=[{"cat": 1}, {"cat": 0}]))
    with pytest.raises(DataError, match=r"row 2: images/x\.png does not exist"):
        read_manifest(parquet(images, path=["images/a.png", "images/x.png"], label=["cat", "dog"]))
    twice = pa.table([paths, ["cat", "dog"], ["cat", "dog"]], names=["path", "label", "label"])
    pq.write_table(twice, images / "set.parquet")
    with pytest.raises(DataError, match=r"the column label appears twice"):
        read_manifest(images / "set.parquet")
    with pytest.raises(DataError, match=r"set\.parquet: there is no column label \(only path, class\)"):
        read_manifest(parquet(images, **{"path": paths, "class": ["cat", "dog"]}))
    (images / "set.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"set\.parquet is not a Parquet table, or corrupted"):
        read_manifest(images / "set.parquet")


def test_other_files(images: Path) -> None:
    with pytest.raises(DataError, match=r"set\.csv is not UTF-8 text: save it as UTF-8"):
        read_manifest(csv(images, "path,label\nimages/a.png,p\u00e4r", encoding="latin1"))
    with pytest.raises(DataError, match=r"set\.doc is not a folder, archive .*, manifest .* or list"):
        read_manifest(csv(images, "PK", "set.doc"))


def test_lists(images: Path) -> None:
    source = read_manifest(csv(images, "images/a.png 3\nimages/b.png\t10\n\nimages/deep/d, e.png 3\n", "set.txt"))
    assert rows(source) == [
        ("images/a.png", "3", UNASSIGNED),
        ("images/b.png", "10", UNASSIGNED),
        ("images/deep/d, e.png", "3", UNASSIGNED),
    ]
    source = read_manifest(csv(images, "0\t1.0\timages/a.png\n1\t2.0\timages/deep/d, e.png\n", "set.lst"))
    assert rows(source) == [("images/a.png", "1.0", UNASSIGNED), ("images/deep/d, e.png", "2.0", UNASSIGNED)]
    with pytest.raises(DataError, match=r"set\.txt line 2 must have a path and a label"):
        read_manifest(csv(images, "images/a.png 3\nimages/b.png\n", "set.txt"))
    with pytest.raises(DataError, match=r"images/a\.png has the list .* names a label twice"):
        read_manifest(csv(images, "images/a.png 0 1 0\n", "set.txt"))
    with pytest.raises(DataError, match=r"a path, a label and a split in each line: add a first line path,label,split"):
        read_manifest(csv(images, "images/a.png,cat,train\nimages/b.png,dog,test\n", "set.txt"))


@pytest.mark.parametrize(
    "line",
    [
        "{path}\t{label}",
        "{path} {label}",
        "{path},{label}",
        "{path}; {label}",
        "{path}  {label} ",
    ],
)
def test_a_list_is_cut_where_the_path_ends(line: str, images: Path) -> None:
    paths = ["images/a.png", "images/deep/d, e.png"]
    text = "".join(line.format(path=path, label="golden retriever") + "\r\n" for path in paths)
    assert rows(read_manifest(csv(images, text, "set.txt"))) == [
        (path, "golden retriever", UNASSIGNED) for path in paths
    ]


def test_a_list_with_names_of_columns_is_a_table(images: Path) -> None:
    for delimiter in (",", "\t"):
        text = delimiter.join(("label", "path")) + "\n" + delimiter.join(("cat", "images/a.png"))
        assert rows(read_manifest(csv(images, text, "set.txt"))) == [("images/a.png", "cat", UNASSIGNED)]


def test_rows_without_a_label_are_left_out_and_counted(images: Path) -> None:
    source = read_manifest(csv(images, f"path,label\n{A}\nimages/b.png,\nimages/gone.png, \nimages/deep/c.png,dog\n"))
    assert [id_ for id_, _, _ in rows(source)] == ["images/a.png", "images/deep/c.png"]
    assert source.findings == ("2 images have no label and were left out: images/b.png, images/gone.png.",)
    paths = ["images/a.png", "images/b.png", "images/deep/c.png"]
    source = read_manifest(parquet(images, path=paths, label=[1.0, None, float("nan")]))
    assert rows(source) == [("images/a.png", "1", UNASSIGNED)]
    assert source.findings == ("2 images have no label and were left out: images/b.png, images/deep/c.png.",)


def test_spellings_of_one_label(images: Path) -> None:
    source = read_manifest(csv(images, f"path,label\nimages/a.png, cat \n{B}\nimages/deep/c.png,cat\n"))
    assert source.class_names == ("cat", "dog")
    assert "' cat ', 'cat' differ only by blanks at the ends: one class, 'cat'" in source.findings[0]
    source = read_manifest(csv(images, "path,label\nimages/a.png,10\nimages/b.png,9\nimages/deep/c.png,9.0\n"))
    assert source.class_names == ("9", "10")


def test_a_class_folder_is_one_label(images: Path, paint) -> None:
    for name in ("[cat, dog]", "cat", "cat;dog", "0 1"):
        paint(images / name / "x.png")
    text = "path,label\n" + "".join(f'"{name}/x.png","{name}"\n' for name in ("[cat, dog]", "cat", "cat;dog", "0 1"))
    assert read_manifest(csv(images, text)).class_names == ("0 1", "[cat, dog]", "cat", "cat;dog")


def test_groups_come_from_a_column(images: Path) -> None:
    text = "path,label,patient\nimages/a.png,cat,7\nimages/b.png,dog,8\nimages/deep/c.png,cat,7\n"
    assert read_manifest(csv(images, text), group="patient").groups == ["7", "8", "7"]
    paths = ["images/a.png", "images/b.png"]
    assert read_manifest(parquet(images, path=paths, label=["cat", "dog"], p=[1, 2]), group="p").groups == ["1", "2"]
    with pytest.raises(DataError, match="there is no column eye"):
        read_manifest(csv(images, text), group="eye")
    with pytest.raises(DataError, match="line 3 has no patient"):
        read_manifest(csv(images, "path,label,patient\nimages/a.png,cat,7\nimages/b.png,dog,\n"), group="patient")


def label_lists(source: Source) -> list[list[str]]:
    """The names of each image's labels."""
    assert source.label_sets is not None
    return [[source.class_names[k] for k in source.label_sets[m]] for m in source.labels_N.tolist()]


PATHS = ("images/a.png", "images/b.png", "images/deep/c.png")
LISTS = [["cat", "dog"], ["dog"], []]
SEVERAL = {
    "separator": ("path,labels\n{}, cat;dog\n{},dog\n{},[]\n", "separated by ';'"),
    "json": ('path,label\n{},"[""dog"", ""cat""]"\n{},"[""dog""]"\n{},[]\n', "in lists"),
    "columns": ("path,cat,width,dog\n{},1,7,1.0\n{},0,8,1\n{},False,9,0\n", "in a column each"),
    "columns in a list": ("path\tcat\tdog\n{}\t1\t1\n{}\t0\t1\n{}\t0\t0\n", "in a column each"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_in_csv(name: str, images: Path) -> None:
    text, how = SEVERAL[name]
    manifest = csv(images, text.format(*PATHS), "set.txt" if name.endswith("list") else "set.csv")
    source = read_manifest(manifest)
    assert (source.class_names, label_lists(source)) == (("cat", "dog"), LISTS)
    about = f"its images have 0 to 2 of 2 labels, 1.0 on average, {how}: multilabel (--data.task)."
    assert source.findings[-1] == about
    with pytest.raises(DataError, match=r"images/(a|deep/c)\.png has .*, but one class under data\.task multiclass"):
        read_manifest(manifest, task="multiclass")


def test_several_rows_of_an_image(images: Path) -> None:
    manifest = csv(images, f"path,label,split\n{A},train\n{B},train\n./images/a.png,dog,train\n")
    source = read_manifest(manifest)
    assert label_lists(source) == [["cat", "dog"], ["dog"]]
    assert "1 to 2 of 2 labels, 1.5 on average, in a row each" in source.findings[-1]
    reason = r"line 4: \./images/a\.png has two labels, 'cat' \(line 2\) and 'dog': keep one, or"
    with pytest.raises(DataError, match=reason):
        read_manifest(manifest, task="multiclass")


def test_few_images_with_several_rows_are_a_mistake(images: Path, paint) -> None:
    many = "".join(f"{paint(images / f'{n}.png').name},cat\n" for n in range(101))
    manifest = csv(images, f"path,label\n{B}\n{many}0.png,dog\n")
    reason = r"line 104: 0\.png has two labels, .*: keep one, or give --data\.task multilabel"
    with pytest.raises(DataError, match=reason):
        read_manifest(manifest)
    assert label_lists(read_manifest(manifest, task="multilabel"))[:2] == [["dog"], ["cat", "dog"]]


def test_one_class_in_lists_or_columns(images: Path) -> None:
    for text in (
        'path,label\n{},"[""cat""]"\n{},"[""dog""]"\n{},"[""dog""]"\n',
        "path,cat,dog,owl\n{},1,0,0\n{},0,1,0\n{},0,1,0\n",
    ):
        source = read_manifest(csv(images, text.format(*PATHS)))
        assert source.label_sets is None
        assert [row[1] for row in rows(source)] == ["cat", "dog", "dog"]
    assert "no image has the label 'owl', a column of 0: it is left out" in source.findings[0]
    text = "path,cat,dog\n" + "".join(f"x{n}.png,1,{2 if n == 1 else 0}\n" for n in range(20))
    with pytest.raises(DataError, match="line 3: the column dog has the value '2', which is neither 0 nor 1: correct"):
        read_manifest(csv(images, text))


def test_missing_labels_among_several(images: Path) -> None:
    for text in ("path,label\n{},cat;dog\n{},cat\n{},\n", "path,cat,dog\n{},1,1\n{},1,0\n{},,\n"):
        source = read_manifest(csv(images, text.format(*PATHS)), task="multilabel")
        assert label_lists(source) == [["cat", "dog"], ["cat"]]
        assert "1 images have no label and were left out (write [] for images that have none of" in source.findings[-2]


def test_several_labels_in_lists_of_files(images: Path) -> None:
    for text, name in (
        ("images/a.png\t5\t7\nimages/b.png\t5\n", "set.txt"),
        ("0\t5\t7\timages/a.png\n1\t5\timages/b.png\n", "set.lst"),
        ("images/a.png 5 7\nimages/b.png 5\n", "set.txt"),
    ):
        assert label_lists(read_manifest(csv(images, text, name))) == [["5", "7"], ["5"]]


@pytest.mark.parametrize(
    "columns",
    [
        {"label": LISTS},
        {"labels": pa.array(LISTS, pa.large_list(pa.string()))},
        {"labels": pa.array(LISTS, pa.list_(pa.dictionary(pa.int8(), pa.string())))},
        {"cat": [True, False, False], "dog": [1, 1, 0], "note": ["x", "y", "z"]},
        {"cat": [1.0, 0.0, 0.0], "dog": ["1", "1", "0"]},
    ],
)
def test_several_labels_in_parquet(columns: dict[str, Any], images: Path) -> None:
    source = read_manifest(parquet(images, path=[*PATHS], **columns))
    assert (source.class_names, label_lists(source)) == (("cat", "dog"), LISTS)


def test_lists_of_numbers_that_metadata_name(images: Path) -> None:
    manifest = parquet(images, path=[*PATHS], labels=[[1, 0], [1], None])
    for feature in ({"feature": {"names": ["cat", "dog"]}, "_type": "Sequence"}, [{"names": ["cat", "dog"]}]):
        about = {"info": {"features": {"labels": feature}}}
        pq.write_table(pq.read_table(manifest).replace_schema_metadata({"huggingface": json.dumps(about)}), manifest)
        assert label_lists(read_manifest(manifest)) == [["cat", "dog"], ["dog"]]
