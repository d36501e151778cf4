"""Answers as a window: those of predict and of a server, and files that are none."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.drift.answer_log import is_answer_log, read_answers
from classifier.errors import DataError
from tests.drift.synthetic import CLASSES, draw_labels, draw_outputs

BUNDLE: Any = SimpleNamespace(class_names=CLASSES, columns=None)


def make_rows(count: int = 40, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    outputs_NK = draw_outputs(draw_labels(count, rng), rng)
    classes = outputs_NK.argmax(1).tolist()
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "image_id": [f"{seed}-{n}" for n in range(count)],
        "predicted": classes,
        "predicted_name": [CLASSES[k] for k in classes],
        "probabilities": pa.array(list(outputs_NK), pa.list_(pa.float32())),
        "novelty": pa.array(rng.normal(size=count), pa.float32()),
        "statistics": pa.array(list(rng.normal(size=(count, 4))), pa.list_(pa.float32())),
        "time": pa.array([began + timedelta(seconds=n) for n in range(count)], pa.timestamp("us", "UTC")),
        "model": ["m"] * count,
        "bundle": ["abc"] * count,
        "image": [f"image {n}".encode() for n in range(count)],
        "error": pa.nulls(count, pa.string()),
    }


def write(folder: Path, rows: dict[str, Any], name: str = "a.parquet") -> str:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(rows), folder / name)
    return str(folder)


def test_a_log_is_read_with_all_that_it_has(tmp_path):
    rows = make_rows()
    path = write(tmp_path / "log", rows)
    assert is_answer_log(path)
    window = read_answers(path, BUNDLE, 1000)
    assert window.ids == rows["image_id"]
    assert window.statistics_MF is not None
    assert window.statistics_MF.shape == (40, 4)
    assert window.probabilities_MK == pytest.approx(np.array(rows["probabilities"].to_pylist()), abs=1e-6)
    assert window.ood_scores_M == pytest.approx(np.array(rows["novelty"].to_pylist()), abs=1e-6)
    assert window.read_images([3, 1]) == [b"image 3", b"image 1"]
    assert window.notes == []


def test_the_newest_answers_are_read_and_of_others_some(tmp_path):
    path = write(tmp_path / "log", make_rows(seed=1), "20260102.parquet")
    write(tmp_path / "log", make_rows(seed=0), "20260101.parquet")
    newest = read_answers(path, BUNDLE, 50)
    assert newest.ids == [f"0-{n}" for n in range(30, 40)] + [f"1-{n}" for n in range(40)]
    assert newest.notes == ["50 of 80 answers are compared, the newest (--limit)"]
    assert newest.read_images([0, 10]) == [b"image 30", b"image 0"]
    timeless = {name: values for name, values in make_rows(80).items() if name not in ("time", "image")}
    some = read_answers(write(tmp_path / "answers", timeless), BUNDLE, 40)
    assert some.ids[::39] == ["0-0", "0-79"]
    assert some.read_images([0]) == [None]


def test_images_without_an_answer_and_other_versions_are_left_out(tmp_path):
    rows = make_rows(60)
    rows["bundle"] = ["old"] * 20 + ["new"] * 40
    lost = pa.array([n == 59 for n in range(60)])
    for name in ("predicted", "predicted_name", "probabilities", "novelty", "statistics"):
        rows[name] = pa.array(rows[name]) if not isinstance(rows[name], pa.Array) else rows[name]
        rows[name] = pa.array(
            [None if is_lost else one.as_py() for one, is_lost in zip(rows[name], lost.to_pylist(), strict=True)],
            rows[name].type,
        )
    window = read_answers(write(tmp_path / "log", rows), BUNDLE, 1000)
    assert window.ids == [f"0-{n}" for n in range(20, 59)]
    assert window.notes == [
        "1 images have no answer, as they could not be read",
        "20 answers of other versions of the model are left out",
    ]


def with_value(values: Any, row: int, value: Any) -> list[Any]:
    plain = values.to_pylist() if isinstance(values, pa.Array) else list(values)
    plain[row] = value
    return plain


def lists(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.list_(pa.float32()))


HOSTILE = {
    "no probabilities": (lambda r: r.pop("probabilities"), "lacks the column probabilities"),
    "no predicted": (lambda r: r.pop("predicted_name"), "lacks the column predicted_name"),
    "text as probabilities": (lambda r: r.update(probabilities=["x"] * 40), "probabilities is string"),
    "numbers as names": (lambda r: r.update(predicted_name=[1] * 40), "predicted_name is int64"),
    "NaN": (
        lambda r: r.update(probabilities=lists(with_value(r["probabilities"], 7, [np.nan] * 5))),
        "probabilities of 0-7 is not finite",
    ),
    "NaN in statistics": (
        lambda r: r.update(statistics=lists(with_value(r["statistics"], 7, [np.inf] * 4))),
        "statistics of 0-7 is not finite",
    ),
    "NaN as score": (
        lambda r: r.update(novelty=pa.array(with_value(r["novelty"], 0, np.nan), pa.float32(), from_pandas=False)),
        "novelty is not finite",
    ),
    "a null list": (lambda r: r.update(probabilities=lists(with_value(r["probabilities"], 7, None))), "as many values"),
    "ragged": (lambda r: r.update(probabilities=lists(with_value(r["probabilities"], 7, [1.0]))), "as many values"),
    "above 1": (
        lambda r: r.update(probabilities=lists(with_value(r["probabilities"], 7, [2.0] * 5))),
        "must be from 0 to 1",
    ),
    "fewer classes": (lambda r: r.update(probabilities=lists([[0.5, 0.5]] * 40)), "answers of 2 classes"),
    "other classes": (lambda r: r.update(predicted_name=["fox"] * 40), "answers of other classes: fox is "),
    "an index out of range": (lambda r: r.update(predicted=with_value(r["predicted"], 3, 99)), "index of a class"),
    "several models": (lambda r: r.update(model=["m"] * 20 + ["n"] * 20), "several models"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_answer_of_the_model_is_refused(tmp_path, case):
    change, message = HOSTILE[case]
    rows = make_rows()
    change(rows)
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path / "log", rows), BUNDLE, 1000)


def test_a_log_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table(make_rows()).slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no answers"):
        read_answers(str(tmp_path), BUNDLE, 1000)


def test_files_that_are_no_tables_and_folders_of_images(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet is not a Parquet table, or corrupted"):
        is_answer_log(str(tmp_path))
    table = pa.table({"image": [b"x"], "label": [1]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert not is_answer_log(str(tmp_path))
    assert not is_answer_log(str(tmp_path / "absent"))


def test_columns_beside_the_images(tmp_path):
    from tests.tables import draw_rows, learn

    schema = learn(draw_rows())
    rows = make_rows() | {"columns": [json.dumps(row, default=str) for row in draw_rows(40)]}
    bundle: Any = SimpleNamespace(class_names=CLASSES, columns=schema)
    window = read_answers(write(tmp_path / "log", rows), bundle, 1000)
    assert window.columns_MF is not None
    assert window.columns_MF.shape == (40, schema.width)
    for text, message in {"[1]": "JSON of values", "{": "JSON of values", '{"absent": 1}': "no column absent"}.items():
        rows["columns"][5] = text
        with pytest.raises(DataError, match=message):
            read_answers(write(tmp_path / "log", rows), bundle, 1000)
