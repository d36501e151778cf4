"""What unlabelled images brought: measured after a training, resumed where it was stopped, told, and warned of."""

import dataclasses
import itertools
import json

import pytest
import torch

import classifier
from classifier import data, models
from classifier.api.unlabelled import FOLDER, explain_unmeasured, measure_unlabelled
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.report.page import Table, Text
from classifier.report.sections.unlabelled_section import build_unlabelled, describe_gain, is_harm
from classifier.runs.folder import RunFolder, read_result
from tests.conftest import draw_photos

GAIN = {
    "method": "softmatch",
    "images": 20_000,
    "by": "validation",
    "judged": 200,
    "accuracy": 0.75,
    "alone": 0.65,
    "interval": [0.04, 0.16],
    "used": True,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gain")
    draw_photos(folder / "labelled", {"cat": 30, "dog": 30})
    draw_photos(folder / "others", {"cat": 60, "dog": 60}, seed=1)
    return folder


def make(photos, **changes) -> Experiment:
    settings = {
        "data.unlabelled": str(photos / "others"),
        "data.validation": 0.3,
        "data.cache": None,
        "data.batch": 8,
        "model.name": "cnn",
        "optimizer.ema": 0.9,
        "train.epochs": 3,
        "train.threads": 1,
        "train.precision": "fp32",
        "checkpoint.epochs": 1,
    }
    return Experiment().override_all(settings | changes)


@pytest.fixture(scope="module")
def run(photos):
    return classifier.train(photos / "labelled", experiment=make(photos), out=photos / "runs", progress=False)


def test_a_training_is_compared_with_the_labels_alone(run, photos):
    gain = read_result(run.folder)["unlabelled"]
    assert (gain["method"], gain["images"], gain["by"], gain["used"]) == ("softmatch", 120, "validation", True)
    validation = read_result(run.folder)["validation"]
    assert gain["judged"] == validation["count"]
    assert gain["accuracy"] == pytest.approx(validation["accuracy"])
    alone = make(photos, **{"semi.weight": 0.0})
    other = classifier.train(photos / "labelled", experiment=alone, out=photos / "runs", progress=False)
    assert "unlabelled" not in read_result(other.folder)
    assert gain["alone"] == pytest.approx(read_result(other.folder)["validation"]["accuracy"])
    assert not (run.folder / FOLDER).exists()
    assert "Unlabelled images" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_comparison_that_was_stopped_goes_on(run):
    experiment, expected = read_experiment(run.folder / "experiment.yaml"), read_result(run.folder)["unlabelled"]
    dataset, folder = data.load(experiment.data), RunFolder(run.folder)
    polls = itertools.count(1)
    assert measure_unlabelled(folder, experiment, dataset, lambda: next(polls) >= 5) is None
    assert (run.folder / FOLDER).is_dir()
    assert measure_unlabelled(folder, experiment, dataset) == expected


def test_it_is_not_measured_where_it_would_take_long_or_tell_nothing(run):
    experiment, folder = read_experiment(run.folder / "experiment.yaml"), RunFolder(run.folder)
    dataset = data.load(experiment.data)
    short = experiment.override("semi.ratio", 1)
    assert measure_unlabelled(folder, short, dataset) is None
    assert "would take 43% of the time of this one" in explain_unmeasured(short, dataset)
    untold = dataclasses.replace(dataset, validation=dataset.validation.take(torch.arange(0)))
    assert measure_unlabelled(folder, experiment, untold) is None
    assert "without validation images" in explain_unmeasured(experiment, untold)
    assert explain_unmeasured(experiment, dataset) == ""
    unlabelled = data.load(experiment.override("data.unlabelled", None).data)
    assert measure_unlabelled(folder, experiment, unlabelled) is None


def test_a_probe_is_compared_by_folds(photos):
    torch.manual_seed(0)
    model = models.build(Experiment().override("model.name", "resnet18").model, classes=4, channels=3, size=32)
    torch.save(model.state_dict(), photos / "w.pth")
    changes = {
        "data.validation": 0.0,
        "data.size": 32,
        "model.name": "resnet18",
        "model.weights": str(photos / "w.pth"),
        "model.probe": True,
        "model.freeze": "backbone",
        "train.epochs": 1,
        "train.keep": "last",
        "optimizer.ema": None,
    }
    run = classifier.train(photos / "labelled", experiment=make(photos, **changes), out=photos / "runs", progress=False)
    result = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))
    gain = result["unlabelled"]
    assert (gain["method"], gain["by"], gain["judged"]) == ("propagation", "folds", result["validation"]["count"])
    kept = gain["accuracy"] if gain["used"] else gain["alone"]
    assert kept == pytest.approx(result["validation"]["accuracy"])


@pytest.mark.parametrize(
    ("changes", "sentence", "warns"),
    [
        ({}, "brought 10.0 points: 75.0% with them, 65.0% with the labels alone (95 % interval +4.0 to +16.0)", False),
        ({"interval": [-0.01, 0.2]}, "brought 10.0 points, which may be chance", False),
        ({"accuracy": 0.6, "interval": [-0.1, -0.01]}, "cost 5.0 points: 60.0% with them, 65.0% with", True),
        ({"accuracy": 0.6, "interval": [-0.1, -0.01]}, "-1.0): leave data.unlabelled out", True),
        ({"accuracy": 0.6, "interval": [-0.1, 0.01]}, "it may be chance", True),
        ({"accuracy": 0.6, "used": False}, "would have cost 5.0 points, so they were left out", False),
    ],
)
def test_what_is_said(changes, sentence, warns):
    gain = GAIN | changes
    assert sentence in describe_gain(gain)
    assert is_harm(gain) is warns
    text, table, _ = build_unlabelled(gain).blocks
    assert isinstance(text, Text)
    assert text.style == ("warning" if warns else "")
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["the labels alone", "with 20,000 unlabelled images (SoftMatch)"]
