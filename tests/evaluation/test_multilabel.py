"""A model of several labels is calibrated, tested, compared and shown; doubtful labels are found."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from torch import Tensor

from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.bundle.predictions import read_predicted_classes, read_probabilities
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.errors import RunError
from classifier.evaluation.calibrate import calibrate_saved_bundle, describe_calibration
from classifier.evaluation.label_errors import check_labels, find_wrong_labels, predict_out_of_fold, rate_labels
from classifier.evaluation.test_split import evaluate_test_split
from classifier.metrics.decisions import Calibration
from classifier.metrics.multilabel_scores import compute_multilabel_scores
from classifier.metrics.significance import compare_predictions
from classifier.report import model_card, run_page
from classifier.report.sections import label_sections
from classifier.runs.folder import HARD_EXAMPLES, PREDICTIONS
from classifier.runs.recorder import summary_scores
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from jobs.steps.scores_table import describe_scores
from tests.browser import Outline
from tests.shapes import CLASSES, make_dataset

CPU = torch.device("cpu")
SMALL = {"model.name": "cnn", "train.epochs": 6, "train.precision": "fp32", "train.threads": 1, "data.batch": 32}
SMALL |= {"schedule.warmup": 0.5, "augment.policy": "none", "optimizer.name": "muon", "optimizer.lr": 0.01}


@pytest.fixture(scope="module")
def shapes():
    return make_dataset(validation=120, test=120)


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> Path:
    """A run folder with a calibrated and tested model."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    experiment = resolve(Experiment().override_all(SMALL), shapes)
    *_, last = fit(experiment, shapes)
    made = Bundle.from_training(experiment, shapes, scores={"validation": last.validation}, epoch=last.number)
    bundle.save(made, last.model, folder / "bundle")
    (folder / "experiment.yaml").write_text(dump_experiment(experiment))
    calibrate_saved_bundle(folder, shapes, folder, device="cpu")
    result = evaluate_test_split(folder, dataset=shapes, device=CPU)
    assert result.predictions
    result.predictions.save([folder])
    return folder


def targets_of(shapes, split: str) -> Tensor:
    return shapes.label_sets_MK[getattr(shapes, split).labels_N]


def test_validation_images_set_thresholds(run, shapes):
    about = bundle.read(run)
    calibration = Calibration.from_dict(about.calibration or {})
    assert calibration.target == "F1"
    assert calibration.images == 120
    probabilities_NK, targets_NK = read_probabilities(run / PREDICTIONS["validation"])
    assert torch.equal(targets_NK, targets_of(shapes, "validation"))
    scores = compute_multilabel_scores(probabilities_NK, targets_NK, CLASSES, calibration.thresholds)
    assert about.scores["validation"]["map"] == pytest.approx(scores["map"])
    assert about.scores["validation"]["micro_f1"] == pytest.approx(scores["micro_f1"])
    assert describe_calibration(about).endswith("on 120 images; thresholds for F1")
    lines = list(label_sections.describe_thresholds(about, probabilities_NK, targets_NK))
    assert [line.split(":")[0] for line in lines] == list(CLASSES)
    assert all("precision" in line and "recall" in line for line in lines)


def test_the_test_is_scored_once_and_saved(run, shapes):
    result = evaluate_test_split(run, dataset=shapes, device=CPU)
    assert result.predictions is None, "a later call reads what was saved"
    scores = result.scores
    assert scores["map"] > 0.6
    assert result.accuracy == scores["subset_accuracy"] == summary_scores(scores)["accuracy"]
    assert repr(result).startswith(f"<test mAP {scores['map']:.2%} (")
    console = Console(width=100, record=True)
    for line in describe_scores(scores):
        console.print(line)
    text = console.export_text()
    assert "test mAP" in text
    assert "threshold" in text
    assert all(name in text for name in CLASSES)


def test_predictions_are_compared(run):
    own = read_predicted_classes(run)
    assert isinstance(own.labels[0], frozenset)
    found = compare_predictions(own, own)
    assert found.f1
    assert found.f1.p == found.p == 1
    table = pq.read_table(run / PREDICTIONS["test"])
    assert [*table.column_names[:3]] == ["image_id", "labels", "predicted_labels"]
    names = [[CLASSES[k] for k in labels] for labels in table["labels"].to_pylist()]
    assert names == table["label_names"].to_pylist()


def test_other_thresholds_drop_the_test_scores(run, shapes, tmp_path):
    before = (run / "bundle" / "bundle.json").read_bytes()
    try:
        calibrate_saved_bundle(run, shapes, tmp_path, device="cpu", recall=0.95)
        about = bundle.read(run)
        assert about.scores["test"] is None
        assert "thresholds for recall 0.95" in describe_calibration(about)
        assert min(row["recall"] for row in about.scores["validation"]["per_class"]) >= 0.95
    finally:
        (run / "bundle" / "bundle.json").write_bytes(before)


def test_the_page_shows_labels(run):
    outline = Outline(run_page.write(run).read_text())
    sections = ["Data", "Classes", "All scores", "Thresholds and calibration", "Hard examples"]
    assert outline.headings[1:] == [*sections, "Integrity checks", "Commands"]
    page, card = (run / run_page.NAME).read_text(), (run / model_card.NAME).read_text()
    for text in ("Mean average precision", "All labels of an image are right for"):
        assert text in page
        assert text in card
    assert "Prediction sets contain" in page
    assert "any number of these labels" in card
    starts = [text.split(".")[0] for text in outline.chart_texts]
    assert starts == ["Precision by recall", "Share of images that have a label, by its probability"]


def test_hard_examples_show_a_label_each(run):
    rows = pq.read_table(run / HARD_EXAMPLES["test"]).to_pylist()
    wrong = [row for row in rows if row["kind"] == "wrong"]
    assert wrong
    for row in wrong:
        assert (row["class_name"] in row["label"].split(" + ")) != (row["class_name"] in row["predicted"].split(" + "))
    sure = [row["probability"] if row["class_name"] in row["predicted"] else 1 - row["probability"] for row in wrong]
    assert sure == sorted(sure, reverse=True)


@pytest.mark.parametrize("labels", [[[0], None], [[0], [9]], [[0], [-1]], [["a"], ["b"]]])
def test_corrupted_labels_are_refused(tmp_path, labels):
    columns = {"labels": labels, "probabilities": pa.array([[0.5] * 4] * 2, pa.list_(pa.float32(), 4))}
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    with pytest.raises(RunError, match="is corrupted"):
        read_probabilities(tmp_path / "predictions.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_class": []}, "must have a row for each class"),
        ({"count": 3}, "a label cannot have more images"),
        ({"map": 2.0}, r"scores\.test\.map"),
        ({"intervals": {}}, r"intervals\.map is missing"),
    ],
)
def test_scores_that_do_not_agree_are_refused(run, change: dict[str, Any], message):
    path = run / "bundle" / "bundle.json"
    before = path.read_text()
    document = json.loads(before)
    document["scores"]["test"] |= change
    try:
        path.write_text(json.dumps(document))
        with pytest.raises(RunError, match=message):
            bundle.read(run)
    finally:
        path.write_text(before)


def test_wrong_labels_are_found():
    rng = np.random.default_rng(0)
    true_NK = torch.from_numpy(rng.random((400, 3)) < [0.5, 0.3, 0.15])
    features_NF = true_NK.float() + 0.25 * torch.from_numpy(rng.normal(size=(400, 3))).float()
    labels_NK = true_NK.clone()
    flipped = torch.tensor([[3, 0], [40, 1], [77, 2], [150, 0], [200, 1], [333, 2]])
    labels_NK[flipped[:, 0], flipped[:, 1]] ^= True
    folds_N = torch.arange(400) % 5
    probabilities_NK = predict_out_of_fold(features_NF, labels_NK.float(), folds_N, 3)
    is_error_NK = find_wrong_labels(probabilities_NK, labels_NK)
    assert is_error_NK[flipped[:, 0], flipped[:, 1]].sum() >= 5
    assert is_error_NK.sum() < 20
    worst = set(rate_labels(probabilities_NK, labels_NK).argsort()[:8].tolist())
    assert len(worst & set(flipped[:, 0].tolist())) >= 5

    sets, rows_N = np.unique(labels_NK.numpy(), axis=0, return_inverse=True)
    source = SimpleNamespace(
        labels_N=rows_N.ravel(),
        class_names=("a", "b", "c"),
        ids=[f"{n}.png" for n in range(400)],
        label_sets=tuple(tuple(np.flatnonzero(row).tolist()) for row in sets),
    )
    hashes = np.arange(400, dtype=np.uint64)
    scan: Any = SimpleNamespace(source=source, usable_N=np.arange(400), hashes_K=hashes)
    findings = check_labels(scan, features_NF)
    found = {finding.ids[0] for finding in findings[:8]}
    assert len(found & {f"{n}.png" for n in flipped[:, 0].tolist()}) >= 5
    assert all(finding.kind == "label_error" and "look" in finding.text for finding in findings)
