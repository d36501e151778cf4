"""The verb compress: a faster bundle of its own, the table, refusals, and resumption after a kill."""

import hashlib
import json
import time
from pathlib import Path

import pytest

from classifier.bundle import bundle as bundles


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
    assert "of the validation split cannot show a loss below" in done.err
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


def test_a_model_without_validation_images_is_refused(verb, draw, tmp_path):
    photos = draw(tmp_path / "photos", {"red": 20, "green": 20})
    settings = ("--recipe", "photos", "--train.epochs", 1, "--data.validation", 0, "--data.batch", 8)
    run = verb("train", photos, *settings).folder
    done = verb("compress", run)
    assert done.code == 2
    assert "no validation images" in done.err
    assert not list((tmp_path / "runs").glob("*-2"))
