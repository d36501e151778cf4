"""Columns beside the images, alike in every format that has them; and in the data set that is built."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.readers.source import Source
from classifier.errors import DataError
from jobs.launch.shared_dataset import SharedDataset
from tests.data.readers.test_archive import pack_tar

COUNT = 40
WEIGHTS = [None if n % 8 == 0 else n / 4 for n in range(COUNT)]
COLOURS = ["red" if n % 3 else "Käse" for n in range(COUNT)]
CELLS = {"weight": ["" if w is None else f"{w:g}" for w in WEIGHTS], "colour": COLOURS}
LABELS = ["cat" if n % 2 else "dog" for n in range(COUNT)]


@pytest.fixture
def images(paint: Callable[[Path], Path], tmp_path: Path) -> list[Path]:
    return [paint(tmp_path / "images" / f"{n:02d}.png") for n in range(COUNT)]


def write_csv(path: Path, images: list[Path], names: str = "weight,colour", **more: list[Any]) -> Path:
    columns = {"path": [image.relative_to(path.parent) for image in images], "label": LABELS}
    columns |= {name: CELLS[name] for name in names.split(",") if name} | more
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_manifest_parquet(path: Path, images: list[Path]) -> Path:
    paths = [str(image.relative_to(path.parent)) for image in images]
    table = {"path": paths, "label": LABELS, "weight": WEIGHTS, "colour": pa.array(COLOURS).dictionary_encode()}
    pq.write_table(pa.table(table | {"box": [[1, 2]] * COUNT}), path)
    return path


def write_images_parquet(path: Path, images: list[Path]) -> Path:
    cells = pa.array([{"bytes": image.read_bytes(), "path": image.name} for image in images])
    weights = pa.array(WEIGHTS, pa.float32())
    pq.write_table(pa.table({"image": cells, "label": LABELS, "weight": weights, "colour": COLOURS}), path)
    return path


def write_shard(path: Path, images: list[Path]) -> Path:
    files: dict[str, bytes] = {}
    for n, image in enumerate(images):
        files[f"{n:02d}.png"] = image.read_bytes()
        row = {"label": LABELS[n], "weight": WEIGHTS[n], "colour": COLOURS[n], "boxes": [n]}
        if n == 5:
            del row["weight"]
        files[f"{n:02d}.json"] = json.dumps(row).encode()
    return pack_tar(path, files)


def open_source(path: Path, *columns: str, **settings: Any) -> Source:
    return data.open_source(DataConfig(path=str(path), columns=columns, **settings))


def load(path: Path, *columns: str, **settings: Any) -> Any:
    return data.load(DataConfig(path=str(path), columns=columns, cache=None, size=8, **settings))


WRITERS = {"a.csv": write_csv, "a.parquet": write_manifest_parquet, "b.parquet": write_images_parquet}


@pytest.mark.parametrize("words", [("all",), ("weight", "colour"), ("weight,colour:category",)])
@pytest.mark.parametrize("name", WRITERS)
def test_the_same_cells_in_every_format(name: str, words: tuple[str, ...], images: list[Path], tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name, images)
    source = open_source(path, *words)
    assert {name: [*cells] for name, cells in source.columns.items()} == CELLS
    assert not any("not used" in finding for finding in source.findings)
    unused = open_source(path)
    assert not unused.columns
    assert any("its columns weight, colour are not used: --data.columns all." in text for text in unused.findings)


def test_keys_of_json_in_shards(images: list[Path], tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", images)
    expected = CELLS | {"weight": [*CELLS["weight"][:5], "", *CELLS["weight"][6:]]}
    for words in (("all",), ("weight", "colour")):
        assert {name: [*cells] for name, cells in open_source(path, *words).columns.items()} == expected
    assert open_source(path).findings[0].endswith("s columns colour, weight are not used: --data.columns all.")
    with pytest.raises(DataError, match=r"there is no column wieght .*did you mean weight"):
        open_source(path, "wieght")
    with pytest.raises(DataError, match=r"boxes is \[0\]: give text or a number"):
        open_source(path, "boxes")
    with pytest.raises(DataError, match="the column label is no input"):
        open_source(path, "label")


def test_json_beside_labels_in_a_file_of_their_own(images: list[Path], tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for n, image in enumerate(images):
        files |= {f"{n}.png": image.read_bytes(), f"{n}.cls": LABELS[n].encode()}
        files[f"{n}.json"] = b"no JSON" if n == 3 else json.dumps({"label": "x", "weight": n}).encode()
    path = pack_tar(tmp_path / "s.tar", files)
    source = open_source(path, "all")
    assert source.class_names == ("cat", "dog")
    assert source.columns["weight"][2:5] == ["2", "", "4"]
    assert not open_source(path).columns


def test_columns_of_classes_and_others(images: list[Path], tmp_path: Path) -> None:
    rows = [f"images/{image.name},{n % 2},{n % 3 % 2},{n},{n // 2 % 2}" for n, image in enumerate(images)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["path,cat,dog,weight,flag", *rows]))
    source = open_source(path, "weight", "flag")
    assert source.class_names == ("cat", "dog")
    assert source.label_sets is not None
    assert [*source.columns] == ["weight", "flag"]
    source = open_source(path, "all")
    assert source.class_names == ("cat", "dog", "flag")
    assert [*source.columns] == ["weight"]


def test_rows_of_one_image_have_the_same_columns(images: list[Path], tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", images)
    first = path.read_text().splitlines()[1]
    with path.open("a") as file:
        file.write(first.replace("dog", "cat") + "\n")
    source = open_source(path, "all", task="multilabel")
    assert len(source.columns["weight"]) == COUNT
    with path.open("a") as file:
        file.write(first.replace("dog", "cow").replace("Käse", "red") + "\n")
    with pytest.raises(DataError, match="has another split, group or column than before"):
        open_source(path, "all", task="multilabel")


def test_what_has_no_columns_is_refused(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digits has no columns beside its images and labels: give a manifest"):
        data.open_source(DataConfig(columns=("all",)))
    with pytest.raises(DataError, match=r"a\.csv: there is no column x"):
        open_source(write_csv(tmp_path / "a.csv", images, ""), "x")
    with pytest.raises(DataError, match="a has no columns beside its images and labels"):
        open_source(tmp_path / "a.csv", "all")
    (tmp_path / "a.txt").write_text("".join(f"images/{image.name} cat\n" for image in images))
    with pytest.raises(DataError, match=r"a\.txt is a list of paths and labels, and has no column weight"):
        open_source(tmp_path / "a.txt", "weight")
    (tmp_path / "b.csv").write_text("".join(f"images/{image.name},cat\n" for image in images))
    with pytest.raises(DataError, match=r"b\.csv does not name its columns: add a first line"):
        open_source(tmp_path / "b.csv", "weight")


def test_structures_are_no_columns(images: list[Path], tmp_path: Path) -> None:
    path = write_manifest_parquet(tmp_path / "a.parquet", images)
    with pytest.raises(DataError, match="the column box has structures instead of values"):
        open_source(path, "box")


def test_rows_without_a_label_and_images_that_are_listed(images: list[Path], tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", images)
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("dog", "")
    path.write_text("\n".join(lines))
    assert [*open_source(path, "weight").columns["weight"]] == [*CELLS["weight"][:2], *CELLS["weight"][3:]]
    some = tmp_path / "some.csv"
    some.write_text("id,label,split\nimages/09.png,cat,\nimages/04.png,dog,\n")
    assert [*open_source(path, "weight", only=str(some)).columns["weight"]] == ["1", "2.25"]


def test_a_data_set_with_columns(images: list[Path], tmp_path: Path) -> None:
    images[7].write_bytes(b"no image")
    path = write_csv(tmp_path / "a.csv", images)
    dataset = load(path, "all", max_corrupt=0.1)
    assert "columns: weight (number), colour (category of 2)." in dataset.findings
    weights = dict(zip((f"images/{image.name}" for image in images), WEIGHTS, strict=True))
    training = [w for id_ in dataset.train.ids if (w := weights[id_]) is not None]
    weight = dataset.columns.columns[0]
    assert (weight.mean, weight.std) == (pytest.approx(np.mean(training)), pytest.approx(np.std(training)))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.columns_NF.shape == (len(split), dataset.columns.width)
        assert (split.columns_NF[:, 0] == 1).all()
        expected = np.array([weights[id_] for id_ in split.ids], float)
        np.testing.assert_allclose(split.columns_NF[:, 1] * weight.std + weight.mean, expected, atol=1e-5)
    encoded_NF = data.load(DataConfig(path=str(path), columns=("all",), cache=None, size=8, max_corrupt=0.1)).train
    np.testing.assert_array_equal(encoded_NF.columns_NF, dataset.train.columns_NF)


def test_the_fingerprint_changes_with_the_columns(images: list[Path], tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", images)
    prints = [load(path).fingerprint, load(path, "all").fingerprint, load(path, "weight").fingerprint]
    prints.append(load(path, "weight:text").fingerprint)
    write_csv(path, images, "")
    assert load(path).fingerprint == prints[0]
    assert len(set(prints)) == 4


def test_subsets_streams_and_folds(images: list[Path], tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", images)
    whole = load(path, "all")
    by_id = dict(zip(whole.train.ids, whole.train.columns_NF, strict=True))
    limited = load(path, "all", limit=10).train
    np.testing.assert_array_equal(limited.columns_NF, [by_id[id_].numpy() for id_ in limited.ids])
    streamed = load(path, "all", stream=True)
    assert streamed.train.columns_NF.shape == (len(streamed.train), whole.columns.width)
    means = {load(path, "all", folds=3, fold=fold).columns.columns[0].mean for fold in range(3)}
    assert len(means) == 3  # each fold's schema is learned from its own training images


def test_trials_share_the_columns(images: list[Path], tmp_path: Path) -> None:
    config = DataConfig(path=str(write_csv(tmp_path / "a.csv", images)), columns=("all",), cache=None)
    dataset = data.load(config)
    opened = SharedDataset.from_dataset(dataset, config).open()
    assert opened.columns == dataset.columns
    np.testing.assert_array_equal(opened.train.columns_NF, dataset.train.columns_NF)


def test_a_schema_that_was_learned_elsewhere(images: list[Path], tmp_path: Path) -> None:
    schema = load(write_csv(tmp_path / "a.csv", images), "all").columns
    config = DataConfig(path=str(write_csv(tmp_path / "b.csv", images, "colour")), columns=("colour",), cache=None)
    dataset = data.load(config, schema=schema)
    assert dataset.columns == schema
    assert "b lacks the columns weight: all their values are missing." in dataset.findings
    assert dataset.train.columns_NF is not None
    assert dataset.train.columns_NF[:, 1].isnan().all()
    assert not dataset.train.columns_NF[:, 2].isnan().any()
