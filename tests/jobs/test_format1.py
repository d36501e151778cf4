"""Files of format 1, as the version before the packages wrote them: they open, resume and evaluate.

format1.tar.xz holds 48 images, a training that was stopped in its second epoch, the history of the same training
without the stop, a search with two finished trials, and the image cache. The weights began as zeros, so it is small.
"""

import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from classifier.bundle import bundle
from classifier.runs.folder import read_history

ARCHIVE = Path(__file__).with_name("format1.tar.xz")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_a_stopped_run_resumes_and_is_evaluated(files, verb):
    stopped = files / "runs" / "stopped"
    assert [row["epoch"] for row in read_history(stopped)] == [1, 2]
    segments = {path.name: path.read_bytes() for path in files.glob("cache/*/segment-*")}
    done = verb("train", "--resume", "runs/stopped")
    assert done.code == 0, done.err
    resumed, unbroken = read_history(stopped), read_history(files / "runs" / "unbroken")
    for name in ("epoch", "step", "lr"):
        assert [row[name] for row in resumed] == [row[name] for row in unbroken]
    for name in ("train_loss", "validation_loss"):
        assert [row[name] for row in resumed] == pytest.approx([row[name] for row in unbroken], rel=1e-5)
    assert {path.name: path.read_bytes() for path in files.glob("cache/*/segment-*")} == segments
    tested = verb("evaluate", "runs/stopped")
    assert tested.code == 0, tested.err
    assert tested.result["test"]["count"] == 12


def test_a_bundle_predicts(files, verb):
    before = bundle.read(files / "runs" / "search")
    assert before.calibration is not None
    done = verb("predict", "runs/search/bundle", "photos/a", "--name", "predicted")
    assert done.code == 0, done.err
    table = pq.read_table(done.folder / "predictions.parquet")
    assert table.column_names[-3:] == ["taken", "likely", "is_unlike"]
    assert len(table) == 24


@pytest.mark.usefixtures("joined")
def test_a_search_goes_on_with_another_trial(files, verb):
    search = files / "runs" / "search"
    histories = {path: path.read_bytes() for path in search.glob("trials/*/history.jsonl")}
    before = {row["trial"]: row for row in pq.read_table(search / "trials.parquet").to_pylist()}
    done = verb("tune", "--resume", "runs/search", "--search.trials", "3")
    assert done.code == 0, done.err
    assert sum(done.result["trials"].values()) == 3
    assert done.result["test_reads"] == 2
    assert {path: path.read_bytes() for path in histories} == histories
    after = {row["trial"]: row for row in pq.read_table(search / "trials.parquet").to_pylist()}
    assert len(after) == 3
    for trial, row in before.items():
        for name in ("validation_accuracy", "validation_loss", "optimizer.lr"):
            assert after[trial][name] == row[name]
