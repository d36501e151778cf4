"""The verb compress: a faster bundle of its own, the table, refusals, and resumption after a kill."""

import hashlib
import json
import time
from pathlib import Path

import pytest
import torch

from classifier import models
from classifier.bundle import bundle as bundles
from classifier.config.experiment import Experiment


def digest(folder: Path) -> dict[str, str]:
    """The contents of a run's files, but for the lock."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def run(verb_in, tmp_path_factory, request) -> Path:
    """A run on three classes of 24 x 24 pixels with validation images."""
    from tests.conftest import draw_photos

    folder = tmp_path_factory.mktemp("runs")
    photos = draw_photos(folder / "photos", dict.fromkeys(("red", "green", "blue"), 50))
    settings = ("--recipe", "photos", "--train.epochs", 3, "--data.validation", 0.3, "--data.cache", "none")
    done = verb_in(folder, "train", photos, *settings, "--name", "first")
    assert done.code == 0, done.err
    return done.folder


def test_the_fastest_accepted_model_is_a_bundle_as_any_other(verb, run):
    before = digest(run)
    done = verb("compress", run, "--max-loss", 60, "--steps", "int8", "views")
    assert done.code == 0, done.err
    assert digest(run) == before
    document = json.loads((done.folder / "compress.json").read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert {"original fp32", "views fp32"} <= rows.keys()
    fastest = min((row for row in rows.values() if row["accepted"]), key=lambda row: row["milliseconds_1"])
    assert document["winner"] == fastest["name"]
    assert all(row["accepted"] == (row["loss_interval"][1] <= 0.6) for row in document["rows"][1:])
    assert done.result["kind"] == "compress"
    assert (bundles.find(done.folder) / "onnx" / "export.json").is_file()
    assert "ms, 1" in done.out
    assert "compress" in (done.folder / "report.html").read_text().lower()
    image = next((run.parent / "photos" / "red").iterdir()) if (run.parent / "photos").exists() else None
    image = image or next((run.parent.parent / "photos" / "red").iterdir())
    assert verb("predict", done.folder, image).code == 0
    assert verb("evaluate", done.folder).code == 0
    assert verb("export", done.folder).code == 0


def test_a_limit_that_so_few_images_cannot_judge_is_refused(verb, run, tmp_path):
    done = verb("compress", run, "--max-loss", 0.1)
    assert done.code == 2
    assert "cannot be shown on 52 images of the validation split" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_killed_compression_is_resumed(verb, started, run, tmp_path):
    options = ("--steps", "distill", "--students", "cnn", "--max-loss", 90, "--epochs", 60, "--name", "half")
    process = started("compress", run, *options)
    began = time.monotonic()
    checkpoints = tmp_path / "runs" / "half" / "steps" / "distill-cnn" / "checkpoints"
    while len(list(checkpoints.glob("step-*/manifest.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    process.kill()
    history = (checkpoints.parent / "history.jsonl").read_text()
    settings = (checkpoints.parent / "experiment.yaml").read_text()
    done = verb("compress", "--resume", "runs/half", "--minutes", 0.001)
    assert done.code == 0, done.err
    assert "no time is left" in done.out
    assert history.split("\n")[0] in (checkpoints.parent / "history.jsonl").read_text()
    assert (checkpoints.parent / "experiment.yaml").read_text() == settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "RUN is missing"),
        (("nowhere",), "does not exist"),
        (("--resume", "nowhere"), "not a run folder"),
        (("nowhere", "--resume", "somewhere"), "leave out RUN"),
        (("nowhere", "--max-loss", "-1"), "max_loss"),
    ],
)
def test_mistakes_are_one_sentence(verb, words, message):
    done = verb("compress", *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_probe_validated_by_folds_is_judged_by_them(verb, draw, tmp_path):
    config = Experiment().override("model.name", "cnn").model
    torch.save(models.build(config, classes=2, channels=3, size=24).state_dict(), tmp_path / "w.pth")
    photos = draw(tmp_path / "photos", {"red": 30, "green": 30})
    settings = ("--recipe", "photos", "--model.name", "cnn", "--model.weights", tmp_path / "w.pth")
    settings += ("--model.probe", "true", "--train.epochs", 1, "--data.validation", 0, "--train.keep", "last")
    run = verb("train", photos, *settings).folder
    done = verb("compress", run, "--max-loss", 90)
    assert done.code == 0, done.err
    document = json.loads((done.folder / "compress.json").read_text())
    assert document["by_folds"] == "by 5 folds of the training images"
    assert document["images"] == bundles.read(run).dataset["counts"]["train"]
    assert f"accuracy on {document['images']} images, by 5 folds of the training images" in done.out
    assert "by 5 folds of the training images" in (done.folder / "report.html").read_text()
    (refusal,) = [line for line in document["refused"] if line.startswith("prune, distill, qat:")]
    assert "--data.validation" in refusal
    assert verb("predict", done.folder, next((photos / "red").iterdir())).code == 0


def test_a_model_without_validation_images_is_refused(verb, draw, tmp_path):
    photos = draw(tmp_path / "photos", {"red": 20, "green": 20})
    settings = ("--recipe", "photos", "--train.epochs", 1, "--data.validation", 0, "--data.batch", 8)
    run = verb("train", photos, *settings).folder
    done = verb("compress", run)
    assert done.code == 2
    assert "no validation images" in done.err
    assert not list((tmp_path / "runs").glob("*-2"))
