"""A model of several labels an image says them wherever it is asked: predictor, answers, exports, server, camera."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from classifier.answers.answering import answer_images
from classifier.answers.listing import ImageListing
from classifier.answers.rows import Columns, write_answers
from classifier.bundle import bundle
from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.data.decoding.image_file import encode_png
from classifier.errors import ConfigError
from classifier.evaluation.calibrate import calibrate_bundle
from classifier.export.folder import GateImages, export_bundle
from classifier.serve import plain
from classifier.serve.version import Query, Reply
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from classifier.watch.counts import Counts
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observer
from classifier.watch.sources.frame import Frame
from jobs.steps.prediction_rows import COLUMNS, csv_row, json_row
from tests.shapes import CLASSES, make_dataset

SETTINGS = {
    "model.name": "cnn",
    "train.epochs": 8,
    "train.precision": "fp32",
    "train.threads": 1,
    "data.batch": 32,
    "optimizer.name": "muon",
    "optimizer.lr": 0.01,
    "augment.policy": "none",
    "augment.test_flip": True,
}


@pytest.fixture(scope="module")
def shapes():
    return make_dataset()


@pytest.fixture(scope="module")
def folder(shapes, tmp_path_factory) -> Path:
    """A trained bundle, calibrated and exported."""
    experiment = resolve(Experiment().override_all(SETTINGS), shapes)
    *_, last = fit(experiment, shapes)
    about = bundle.Bundle.from_training(experiment, shapes, scores={"validation": last.validation}, epoch=8)
    path = tmp_path_factory.mktemp("run") / "bundle"
    bundle.save(about, last.model, path)
    calibrated, _ = calibrate_bundle(bundle.load(path), shapes)
    bundle.save(*calibrated, path)
    export_bundle(path, "onnx", GateImages.select(shapes))
    return path


@pytest.fixture(scope="module")
def predictor(folder) -> Predictor:
    return Predictor(folder, engine="torch", device="cpu")


@pytest.fixture(scope="module")
def pixels(shapes) -> np.ndarray:
    return shapes.test.images_NCHW.numpy()


def test_labels_are_those_that_reach_their_thresholds(predictor, shapes, pixels):
    assert predictor.task == "multilabel"
    found = predictor.predict(list(pixels[:, 0]), k=2)
    thresholds_K = np.array(predictor.calibration.thresholds)
    for prediction in found:
        said = {CLASSES[k] for k in np.flatnonzero(prediction.probabilities >= thresholds_K)}
        assert prediction.labels is not None
        assert set(prediction.labels) == said
        probabilities = [prediction.probabilities[CLASSES.index(name)] for name in prediction.labels]
        assert probabilities == sorted(probabilities, reverse=True)
        assert prediction.decision == (prediction.labels[0] if prediction.labels else None)
        assert said <= set(prediction.prediction_set)
        assert prediction.describe() == (", ".join(prediction.labels) or "no label")
        assert len(prediction.top) == 2
    assert any(len(prediction.labels) > 1 for prediction in found)
    assert any(not prediction.labels for prediction in found)
    targets_NK = shapes.label_sets_MK[shapes.test.labels_N].numpy()
    said_NK = np.array([[name in prediction.labels for name in CLASSES] for prediction in found])
    assert (said_NK == targets_NK).mean() > 0.8, "most labels are right"


def test_without_calibration_labels_are_those_from_one_half_on(folder, pixels):
    predictor = Predictor(folder, engine="torch", device="cpu")
    predictor.calibration = None
    for prediction in predictor.predict(list(pixels[:5, 0])):
        assert prediction.labels is not None
        said = {CLASSES[k] for k in np.flatnonzero(prediction.probabilities >= 0.5)}
        assert set(prediction.labels) == set(prediction.prediction_set) == said


def test_an_export_says_the_same_labels(folder, predictor, pixels):
    exported = Predictor(folder, engine="onnx")
    judged, expected = exported.judge(pixels), predictor.judge(pixels)
    np.testing.assert_allclose(judged.probabilities_NK, expected.probabilities_NK, atol=1e-5)
    assert (judged.probabilities_NK.sum(1) > 1.2).any(), "labels do not share one probability"
    np.testing.assert_array_equal(judged.said_NK, expected.said_NK)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_answers_have_a_column_of_labels(predictor, pixels, tmp_path, kind):
    for n, image_CHW in enumerate(pixels[:12]):
        (tmp_path / f"{n:02d}.png").write_bytes(encode_png(image_CHW))
    (tmp_path / "99.png").write_bytes(b"no image")
    for name, words in {"some": [str(tmp_path)], "none": [str(tmp_path / "99.png")]}.items():
        path = tmp_path / f"{name}.{kind}"
        answers = answer_images(predictor, [*ImageListing(words)], Columns(2))
        write_answers(answers, path, kind)
        rows = _read(path)
        assert "labels" in rows[0]
        assert rows[-1]["labels"] in (None, "")
    expected = predictor.predict(list(pixels[:12, 0]))
    rows = _read(tmp_path / f"some.{kind}")
    assert [_parse(row["labels"]) for row in rows[:12]] == [list(prediction.labels) for prediction in expected]
    assert {row["verdict"] for row in rows[:12]} == {"sure"}, "that an image has no label is an answer"


def test_rows_on_standard_output_have_the_labels(predictor, pixels):
    [prediction] = predictor.predict([pixels[0, 0]], k=2)
    assert json_row(prediction)["labels"] == prediction.labels
    assert json.loads(csv_row(prediction)[len(COLUMNS)]) == list(prediction.labels)


def test_the_server_says_the_labels(predictor, pixels):
    version: Any = SimpleNamespace(predictor=predictor, name="shapes", number="1", bundle="0")
    judgement = predictor.judge(pixels[:7])
    reply = Reply(version, [judgement], {}, list(pixels[:7]), [])
    status, answer = plain.describe(reply, Query(images_NCHW=pixels[:7]))
    assert status == 200
    expected = predictor.predict(list(pixels[:7, 0]))
    assert [row["labels"] for row in answer["predictions"]] == [one.labels for one in expected]
    assert [row["description"] for row in answer["predictions"]] == [one.describe() for one in expected]
    names = [set(name.split(", ")) - {""} for name in reply.names()]
    assert names == [set(one.labels or ()) for one in expected]


def test_a_camera_sees_the_labels(predictor, pixels):
    counts = Counts()
    observer = Observer(predictor, counts, WatchMetrics(counts, "shapes"))
    for image_CHW in pixels[:7]:
        pixels_HWC = np.repeat(image_CHW.transpose(1, 2, 0), 3, axis=2)
        observed = observer.observe(Frame(0, 0.0, 0.0, lambda pixels_HWC=pixels_HWC: pixels_HWC, is_first=True))
        [prediction] = predictor.predict([pixels_HWC])
        assert observed.answer == prediction.describe()
        assert observed.values[-2] == 0, "it is sure, also of no label"


def test_verbs_that_know_one_class_refuse(folder):
    with pytest.raises(ConfigError, match=r"robust knows one class an image, and this model several labels"):
        bundle.read(folder).refuse_labels("robust")
    dataclasses.replace(bundle.read(folder), task="multiclass").refuse_labels("robust")


def test_a_bundle_of_several_labels_keeps_its_scores(folder, shapes):
    scores = bundle.read(folder).scores["validation"]
    assert scores["count"] == len(shapes.validation)
    assert {"map", "micro_f1", "macro_f1", "subset_accuracy", "intervals"} <= scores.keys()


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [*csv.DictReader(file)]
    return [json.loads(line) for line in path.read_text().splitlines()]


def _parse(labels: Any) -> list[str]:
    return json.loads(labels) if isinstance(labels, str) else labels
