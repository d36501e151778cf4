"""What fails after the training costs neither the model nor the result, and is made later."""

import errno
import json
import warnings
from pathlib import Path

import pytest

import classifier
from classifier.api import pages, testing, training
from classifier.api.missing import Missing
from classifier.api.pages import write_pages

SETTINGS = {"train.epochs": 2, "model.name": "cnn", "data.limit": 64, "data.batch": 32}


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "function", "name", "remedy"),
    [
        (pages.run_page, "write", "report.html", "classifier report"),
        (pages.png, "draw_learning_curves", "curves.png", "classifier report"),
        (training, "calibrate_saved_bundle", "the calibration", "classifier calibrate"),
    ],
)
def test_a_training_is_whole_without_what_could_not_be_made(tmp_path, monkeypatch, module, function, name, remedy):
    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail)
        with pytest.warns(UserWarning, match=f"{name} is missing .*No space left.*{remedy}"):
            run = classifier.train("digits", out=tmp_path, name="a", progress=False, **SETTINGS)
    assert (run.status, run.result["missing"]) == ("finished", [name])
    assert f"{name} is missing" in (run.folder / "run.log").read_text()
    assert classifier.load(run).class_names
    missing = Missing()
    write_pages(run.folder, missing)
    assert missing.names == []
    assert (run.folder / "report.html").is_file()
    assert (run.folder / "curves.png").is_file()
    assert run.result["missing"] == ([name] if name == "the calibration" else [])


def test_a_test_is_saved_without_its_predictions_and_its_chart(tmp_path, monkeypatch):
    run = classifier.train("digits", out=tmp_path, name="a", progress=False, **SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(testing.png, "draw_confusion_matrix", fail)
        patch.setattr("classifier.evaluation.split_predictions.save_predictions", fail)
        with pytest.warns(UserWarning, match=" is missing ") as warned:
            accuracy = run.test().accuracy
    assert [str(one.message).partition(" is missing")[0] for one in warned] == ["predictions.parquet", "confusion.png"]
    assert run.result["test"]["accuracy"] == accuracy
    assert run.result["missing"] == ["predictions.parquet", "confusion.png"]
    with warnings.catch_warnings(action="error"):
        run.test(again=True)
    assert (run.folder / "predictions.parquet").is_file()
    assert (run.folder / "confusion.png").is_file()
    assert run.result["missing"] == []
    assert run.result["test_reads"] == 2


def test_a_fault_before_the_first_epoch_is_told_in_words(tmp_path, monkeypatch):
    def break_pipe(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(training, "describe_epoch", break_pipe)
    with pytest.raises(BrokenPipeError):
        classifier.train("digits", out=tmp_path, name="a", progress=False, **SETTINGS)
    result = json.loads((Path(tmp_path) / "a" / "result.json").read_text())
    assert (result["status"], "the reader of the pipe has ended" in result["error"]) == ("failed", True)
