"""The evaluation verbs on the bundled digits: calibrate, crossval, curve, compare, runs, robust, report."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from classifier.bundle import bundle

QUICK = ("--model.name", "cnn", "--data.batch", "128", "--train.epochs", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def run(verb_in, home):
    """A trained and tested run."""
    done = verb_in(home, "train", *QUICK, "--name", "a")
    assert done.code == 0, done.err
    tested = verb_in(home, "evaluate", str(done.folder))
    assert tested.code == 0, tested.err
    return done


def test_training_ends_with_calibration_and_report(run):
    calibration = bundle.read(run.folder).calibration
    assert calibration is not None
    assert calibration["images"] == 162
    assert 0.05 < calibration["temperature"] < 5
    assert "report: " in run.out
    page = (run.folder / "report.html").read_text()
    for title in ("Data", "Training", "Confusion", "Classes", "Calibration", "Hard examples", "Commands"):
        assert f"<h2>{title}</h2>" in page
    assert "held-out images" in page
    assert len(page) < 5_000_000
    card = (run.folder / "model_card.md").read_text()
    assert "## Limitations" in card
    assert pq.read_table(run.folder / "mistakes.parquet").num_rows > 0


def test_report_is_reproduced_from_saved_results(run, verb_in, home):
    before = (run.folder / "report.html").read_text()
    (run.folder / "report.html").unlink()
    done = verb_in(home, "report", str(run.folder))
    assert done.code == 0, done.err
    assert done.out.strip().endswith("report.html")
    assert (run.folder / "report.html").read_text() == before


def test_page_is_written_although_the_reader_of_the_output_has_ended(run, home):
    script = Path(__file__).resolve().parents[2] / "jobs" / "calibrate.py"
    before = (run.folder / "report.html").stat().st_mtime_ns
    done = subprocess.Popen([sys.executable, script, str(run.folder)], cwd=home, stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    assert done.stdout.readline()
    done.stdout.close()
    assert done.wait(120) in (0, 1)
    assert (run.folder / "report.html").stat().st_mtime_ns > before


def test_watching_a_finished_run_writes_the_report_once(run, verb_in, home):
    done = verb_in(home, "report", str(run.folder), "--watch")
    assert done.code == 0
    assert 'http-equiv="refresh"' not in (run.folder / "report.html").read_text()


def test_watching_a_run_refreshes_the_report_until_it_ends(verb_in, started, home):
    words = ("--model.name", "cnn", "--data.batch", "128", "--train.epochs", "30", "--name", "watched")
    training = started("train", *words, cwd=home)
    while not (home / "runs" / "watched" / "history.jsonl").exists():
        assert training.poll() is None
        time.sleep(0.1)
    done = verb_in(home, "report", "runs/watched", "--watch")
    assert done.code == 0, done.err
    assert training.wait(timeout=120) == 0
    assert "while the run is in progress" in done.out
    assert 'http-equiv="refresh"' not in (home / "runs" / "watched" / "report.html").read_text()


@pytest.mark.slow
def test_cross_validation_stops_when_interrupted_and_resumes(joined, verb_in, started, home):
    words = ("--model.name", "cnn", "--data.batch", "64", "--train.epochs", "40", "--folds", "4", "--name", "cut")
    running = started("crossval", *words, cwd=home)
    folds = home / "runs" / "cut" / "folds"
    while not list(folds.glob("*/result.json")):
        assert running.poll() is None
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 130
    before = {path: path.stat().st_mtime_ns for path in folds.glob("*/result.json")}
    assert 1 <= len(before) < 4
    done = verb_in(home, "crossval", "--resume", "runs/cut")
    assert done.code == 0, done.err
    assert len(done.result["folds"]["accuracy"]["folds"]) == 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


@pytest.mark.slow
def test_nested_cross_validation_searches_in_each_fold(verb_in, home):
    words = ("--search", "true", "--search.trials", "2", "--folds", "2", "--name", "nested")
    done = verb_in(home, "crossval", *QUICK, *words)
    assert done.code == 0, done.err
    assert (done.folder / "folds" / "fold1" / "trials.parquet").is_file()
    assert done.result["folds"]["accuracy"]["mean"] > 0.5
    assert pq.read_table(done.folder / "predictions.parquet").num_rows == 1797


def test_predict_uses_the_calibrated_thresholds(run, verb_in, home):
    image_path = home / "noise.png"
    from PIL import Image

    Image.effect_noise((64, 64), 90).save(image_path)
    done = verb_in(home, "calibrate", str(run.folder), "--precision", "0.99", "--coverage", "0.95")
    assert done.code == 0, done.err
    assert done.folder == run.folder  # it makes no run folder of its own
    calibration = bundle.read(run.folder).calibration
    assert calibration is not None
    assert calibration["wish"] == "precision 0.99"
    assert calibration["coverage"] == 0.95
    assert bundle.read(run.folder).scores["test"] is not None  # same temperature, same scores
    predicted = verb_in(home, "predict", str(run.folder), str(image_path), "--maps", "grad_cam")
    assert predicted.code == 0, predicted.err
    assert re.search(r"noise.png: (unlike anything seen in training|not sure)", predicted.out)
    row = pq.read_table(predicted.folder / "predictions.parquet").to_pylist()[0]
    assert row["is_unlike"] or row["taken"] is None
    with Image.open(predicted.folder / "maps" / "000-noise.jpg") as drawn:
        assert min(drawn.size) >= 112


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--coverage", "1.5"), "--coverage 1.5"),
        (("--precision", "0.9", "--recall", "0.9"), "exactly one of"),
        (("--precision", "2"), "at most 1"),
    ],
)
def test_invalid_calibration_targets_are_refused(run, here, words, message):
    done = here("calibrate", str(run.folder), *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_cross_validation_tests_every_image_once(joined, verb_in, home):
    done = verb_in(home, "crossval", *QUICK, "--train.epochs", "1", "--folds", "2", "--name", "cv")
    assert done.code == 0, done.err
    result = done.result
    assert result["kind"] == "crossval"
    assert len(result["folds"]["accuracy"]["folds"]) == 2
    predictions = pq.read_table(done.folder / "predictions.parquet")
    assert len(set(predictions["image_id"].to_pylist())) == len(predictions) == 1797
    scores = json.loads((done.folder / "scores.json").read_text())
    assert scores["count"] == 1797
    assert "Folds" in (done.folder / "report.html").read_text()
    changed = verb_in(home, "crossval", "--resume", str(done.folder), "--folds", "4")
    assert changed.code == 2
    assert "leave the other flags out" in changed.err
    again = verb_in(home, "crossval", "--resume", str(done.folder))
    assert again.code == 0, again.err
    assert again.result["folds"] == result["folds"]


def test_learning_curve_extrapolates_to_more_images(joined, verb_in, home):
    done = verb_in(home, "curve", *QUICK, "--train.epochs", "2", "--sizes", "3", "--name", "curve")
    assert done.code == 0, done.err
    curve = done.result["curve"]
    assert [point["images"] for point in curve["points"]] == [326, 652, 1304]
    assert set(curve["predicted"]) == {"2608", "13040"}
    assert "Twice as many images" in done.out
    assert "Learning curve" in (done.folder / "report.html").read_text()


def test_two_runs_are_compared_image_by_image(run, verb_in, home):
    other = verb_in(home, "train", *QUICK, "--name", "b", "--optimizer.lr", "1e-5")
    assert verb_in(home, "evaluate", str(other.folder)).code == 0
    before = {*(home / "runs").iterdir()}
    done = verb_in(home, "compare", str(run.folder), str(other.folder))
    assert done.code == 0, done.err
    assert "a is better than b" in done.out.splitlines()[-1]
    assert {*(home / "runs").iterdir()} == before
    saved = verb_in(home, "compare", str(run.folder), str(other.folder), "--out", "compared")
    assert saved.folder == home / "compared" / "digits-1"
    assert saved.result["differences"][0]["p"] < 0.01


def test_incomparable_runs_are_refused(run, verb_in, home):
    lonely = verb_in(home, "compare", str(run.folder))
    assert lonely.code == 2
    assert "give at least two runs" in lonely.err
    missing = verb_in(home, "compare", str(run.folder), "runs/nowhere")
    assert missing.code == 2
    assert "runs/nowhere does not exist" in missing.err
    untested = verb_in(home, "train", *QUICK, "--name", "untested")
    done = verb_in(home, "compare", str(run.folder), str(untested.folder))
    assert done.code == 2
    assert "test it first: classifier evaluate" in done.err


def test_runs_are_listed_and_deleted(run, verb_in, home):
    verb_in(home, "train", *QUICK, "--name", "spare")
    done = verb_in(home, "runs", "--where", "kind=train", "--sort", "test")
    assert done.code == 0, done.err
    assert "spare" in done.out
    refused = verb_in(home, "runs", "--where", "name=spare", "--delete")
    assert "nothing was deleted" in refused.out
    assert (home / "runs" / "spare").exists()
    gone = verb_in(home, "runs", "--where", "name=spare", "--delete", "--yes")
    assert gone.code == 0
    assert not (home / "runs" / "spare").exists()
    assert run.folder.exists()
    wrong = verb_in(home, "runs", "--where", "modell=cnn")
    assert wrong.code == 2


def test_robustness_is_in_the_report(run, verb_in, home):
    done = verb_in(home, "robust", str(run.folder), "--images", "100", "--shift", "digits")
    assert done.code == 0, done.err
    assert done.folder == run.folder
    found = json.loads((run.folder / "robustness.json").read_text())
    assert found["corruptions"]["images"] == 100
    assert len(found["corruptions"]["kinds"]) == 13
    assert found["attacks"]["pgd"][-1] <= found["attacks"]["pgd"][0] + 0.02
    assert found["shift"]["count"] == 1797
    assert "Robustness" in (run.folder / "report.html").read_text()
