"""Classes in classes, in every format that has labels."""

import csv
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier import data
from classifier.config.sections import DataConfig, Task
from classifier.data.readers.source import Source, UntrainableError
from classifier.data.split_names import TEST, TRAIN
from classifier.errors import DataError

TREE = {"animal/bird/owl": 2, "animal/dog": 3, "plant/fern": 2, "plant/moss": 2, "stone": 2}


def open_nested(path: Path, task: Task | Literal["auto"] = "nested") -> Source:
    return data.open_source(DataConfig(path=str(path), task=task))


def labels(source: Source) -> dict[str, str]:
    return {id_: source.class_names[k] for id_, k in zip(source.ids, source.labels_N.tolist(), strict=True)}


@pytest.fixture
def folder(tmp_path: Path, paint) -> Path:
    for name, count in TREE.items():
        for n in range(count):
            paint(tmp_path / "tree" / name / f"{n}.png")
    return tmp_path / "tree"


def as_zip(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def as_manifest(folder: Path) -> Path:
    path = folder.parent / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for image in sorted(folder.rglob("*.png")):
            label = image.parent.relative_to(folder).as_posix().replace("animal/", "animal / ")
            writer.writerow((image.relative_to(folder.parent).as_posix(), label))
    return path


def as_shards(folder: Path) -> Path:
    path = folder.parent / "set.tar"
    with tarfile.open(path, "w") as archive:
        for n, image in enumerate(sorted(folder.rglob("*.png"))):
            (label := folder.parent / "label").write_text(image.parent.relative_to(folder).as_posix())
            archive.add(image, f"{n}.png")
            archive.add(label, f"{n}.cls")
    return path


def as_table(folder: Path) -> Path:
    path = folder.parent / "set.parquet"
    images = sorted(folder.rglob("*.png"))
    names = [image.parent.relative_to(folder).as_posix() for image in images]
    pq.write_table(pa.table({"image": [{"bytes": one.read_bytes()} for one in images], "label": names}), path)
    return path


@pytest.mark.parametrize("pack", [lambda folder: folder, as_zip, as_manifest, as_shards, as_table])
def test_every_format(pack: Callable[[Path], Path], folder: Path) -> None:
    source = open_nested(pack(folder))
    assert source.class_names == tuple(TREE)
    assert [(source.labels_N == k).sum() for k in range(len(TREE))] == [*TREE.values()]
    assert "its 5 classes are nested: animal (2), plant (2), stone (1)." in source.findings


def test_folders_are_nested_only_when_asked(folder: Path) -> None:
    source = open_nested(folder, "auto")
    assert source.class_names == ("animal", "plant", "stone")
    [finding] = source.findings
    assert finding == (
        "its class folders hold folders of images (animal: bird, dog): add --data.task nested if these are classes in "
        "classes."
    )
    (folder / "animal" / "dog" / "0.png").rename(folder / "animal" / "0.png")
    assert open_nested(folder, "auto").findings == ()  # as folders by day may be


def test_paths_in_a_table_are_noticed(folder: Path) -> None:
    path = as_table(folder)
    [finding] = open_nested(path, "auto").findings
    assert finding.startswith("the names of its classes are paths, such as 'animal/bird/owl': with --data.task nested")
    assert open_nested(path, "multiclass").findings == ()


def test_splits_around_and_inside_the_outermost_classes(folder: Path, paint) -> None:
    outer = folder.parent / "outer"
    inner = folder.parent / "inner"
    for split, count in (("train", 2), ("test", 1)):
        for name in TREE:
            for n in range(count):
                paint(outer / split / name / f"{n}.png")
        for name in ("animal/dog", "animal/cat", "plant/moss"):
            top, _, rest = name.partition("/")
            paint(inner / top / split / rest / "0.png")
    for path, classes in ((outer, (*TREE,)), (inner, ("animal/cat", "animal/dog", "plant/moss"))):
        source = open_nested(path)
        assert source.class_names == classes
        assert set(source.splits_N.tolist()) == {TRAIN, TEST}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("animal", "animal/dog", "plant/moss"), r"'animal' has images of its own, .* such as 'animal/other'"),
        (("cat", "dog"), r"has no classes in classes, such as animal/dog .*: leave out --data.task nested"),
        (("animal/dog", "plant/moss"), r"has no classes in classes"),
        (("a/b/dog", "a/b/cat"), r"has no classes in classes"),
        (("Animal/dog", "animal/cat", "plant/moss"), r"'Animal' and 'animal' differ only by case"),
    ],
)
def test_what_is_no_tree_is_refused(names: tuple[str, ...], message: str, tmp_path: Path, paint) -> None:
    for name in names:
        paint(tmp_path / "set" / name / "0.png")
    with pytest.raises(UntrainableError, match=message) as caught:
        open_nested(tmp_path / "set")
    assert len(labels(caught.value.source)) == len(names)  # an audit goes on


def test_empty_parts_and_folders_are_refused(folder: Path) -> None:
    path = as_manifest(folder)
    path.write_text(path.read_text().replace("plant/fern", "plant//fern"))
    with pytest.raises(DataError, match=r"a part of the class 'plant//fern' is empty: write its path like animal/dog"):
        open_nested(path)
    (folder / "plant" / "lichen" / "grey").mkdir(parents=True)
    with pytest.raises(DataError, match=r"the class folder 'plant/lichen' has no images"):
        open_nested(folder)
