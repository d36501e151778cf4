"""Answers to the rows of a table: of images and columns, of columns alone, and of images whose columns are missing."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.answers.answering import answer_images, describe_model
from classifier.answers.listing import ImageListing, ListedImage, cut_into_parts
from classifier.answers.rows import Columns, write_answers
from classifier.bundle.predictor import Predictor
from classifier.data.decoding.image_file import encode_png
from classifier.errors import DataError
from tests.tables import NAMES, draw_rows, make_bundle, make_dataset

COUNT = 9
ROWS = draw_rows(COUNT)
IMAGELESS = (2, 5)


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def predictor(dataset, tmp_path_factory) -> Predictor:
    return Predictor(make_bundle(tmp_path_factory.mktemp("columns") / "bundle", dataset), device="cpu")


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory) -> Path:
    """Images, and the same table of them in every format; two rows have no image."""
    folder = tmp_path_factory.mktemp("tables")
    images = [image.numpy() for image in dataset.train.images_NCHW[:COUNT]]
    for n, image_CHW in enumerate(images):
        (folder / f"{n}.png").write_bytes(encode_png(image_CHW))
    rows = [{"path": "" if n in IMAGELESS else f"{n}.png", **row, "label": "?"} for n, row in enumerate(ROWS)]
    for name, delimiter in (("table.csv", ","), ("table.tsv", "\t")):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    lines = [json.dumps({name: value for name, value in row.items() if value not in ("", None)}) for row in rows]
    (folder / "table.jsonl").write_text("\n".join(lines))
    pq.write_table(pa.Table.from_pylist(rows), folder / "table.parquet")
    embedded = [row | {"image": None if n in IMAGELESS else encode_png(images[n])} for n, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(embedded).drop_columns(["path"]), folder / "images.parquet")
    return folder


def listing(*words: Path, columns: tuple[str, ...] = NAMES) -> ImageListing:
    return ImageListing([str(word) for word in words], columns=columns)


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl", "table.parquet"])
def test_rows_of_every_table_are_answered_alike(predictor, dataset, folder, name):
    images = [None if n in IMAGELESS else folder / f"{n}.png" for n in range(COUNT)]
    expected_NK = predictor(images, ROWS)
    listed = listing(folder / name)
    assert listed.notes == []
    found = [*listed]
    assert [one.file is None for one in found] == [n in IMAGELESS for n in range(COUNT)]
    answers = answer_images(predictor, found, Columns(2))
    np.testing.assert_allclose(answers.judgement.probabilities_NK, expected_NK, atol=1e-6)
    assert not answers.errors
    assert f"{name} " in found[2].id


def test_a_table_with_its_images_in_it_has_columns_too(predictor, folder):
    found = [*listing(folder / "images.parquet")]
    answers = answer_images(predictor, found, Columns(2))
    others = [n for n in range(COUNT) if n not in IMAGELESS]
    expected_NK = predictor([folder / f"{n}.png" for n in others], [ROWS[n] for n in others])
    read = [n for n in range(COUNT) if n not in answers.errors]
    assert read == others
    np.testing.assert_allclose(answers.judgement.probabilities_NK, expected_NK, atol=1e-6)


def test_a_table_without_paths_is_answered_by_its_columns(predictor, tmp_path):
    (tmp_path / "rows.csv").write_text("weight,seen\n3.5,2020-01-01\n?,\n")
    listed = listing(tmp_path / "rows.csv")
    answers = answer_images(predictor, [*listed], Columns(2))
    [expected_K] = predictor([None], [{"weight": 3.5, "seen": "2020-01-01"}])
    np.testing.assert_allclose(answers.judgement.probabilities_NK, [expected_K], atol=1e-6)
    assert "there is neither an image nor a value of a column" in answers.errors[1]
    [note] = listed.notes
    assert note.startswith("columns of the model are missing (colour, or none, notes): a table gives them")


def test_images_without_a_table_are_answered_and_one_line_says_what_is_missing(predictor, folder):
    listed = listing(folder / "1.png", folder / "3.png")
    found = [*listed]
    assert len(listed.notes) == 1
    assert "columns of the model are missing (weight, " in listed.notes[0]
    answers = answer_images(predictor, found, Columns(2))
    expected_NK = predictor([folder / "1.png", folder / "3.png"])
    np.testing.assert_allclose(answers.judgement.probabilities_NK, expected_NK, atol=1e-6)
    assert listing(folder / "1.png", columns=()).notes == []


def test_a_value_that_is_none_of_its_kind_stops_no_other_row(predictor, folder, tmp_path):
    (tmp_path / "table.csv").write_text(f"path,weight\n{folder}/1.png,heavy\n{folder}/3.png,2\n")
    listed = ImageListing([str(tmp_path / "table.csv")], columns=NAMES, outside=True)
    answers = answer_images(predictor, [*listed], Columns(2))
    assert "weight is 'heavy', which is no number" in answers.errors[0]
    np.testing.assert_allclose(
        answers.judgement.probabilities_NK, predictor([folder / "3.png"], [{"weight": 2}]), atol=1e-6
    )


def test_a_row_without_a_path_needs_a_model_that_takes_columns(folder):
    with pytest.raises(DataError, match=r"table.csv line 4 has no path"):
        list(listing(folder / "table.csv", columns=()))


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_missing_image_has_no_novelty(predictor, folder, tmp_path, kind):
    answers = answer_images(predictor, [*listing(folder / "table.csv")], Columns(2))
    write_answers(answers, path := tmp_path / f"answers.{kind}", kind)
    rows: list[dict[str, Any]]
    if kind == "parquet":
        rows = pq.read_table(path).to_pylist()
    elif kind == "csv":
        with path.open(newline="") as file:
            rows = [*csv.DictReader(file)]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["novelty"] in (None, "") for row in rows] == [n in IMAGELESS for n in range(COUNT)]


def test_a_part_is_another_one_where_a_value_has_changed(folder, predictor):
    first, second = ([ListedImage("1.png", folder / "1.png", row={"weight": w})] for w in (1, 2))
    [one], [other] = cut_into_parts(first, 5), cut_into_parts(second, 5)
    assert one.fingerprint != other.fingerprint
    assert describe_model(predictor)[0] != ""
