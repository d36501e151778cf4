"""A search that is interrupted, killed, or lost with its machine."""

import json
import shutil
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest

FAST = ("--model.name", "cnn", "--data.batch", "128")


@pytest.mark.usefixtures("joined")
def test_ctrl_c_ends_a_search_with_the_best_model_so_far(started, tmp_path):
    process = started(
        "tune", *FAST, "--train.epochs", "300", "--search.trials", "50", "--name", "s", stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    # When an epoch has been written, the driver may not have received it yet.
    while not any(path.read_text().endswith("\n") for path in tmp_path.glob("runs/s/trials/*/history.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    result = json.loads((tmp_path / "runs" / "s" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert result["validation"]["count"] == 162
    assert (tmp_path / "runs" / "s" / "bundle" / "bundle.json").exists()


@pytest.mark.usefixtures("joined")
def test_search_interrupted_before_its_first_epoch_can_be_resumed(started, tmp_path):
    process = started(
        "tune",
        *FAST,
        "--train.epochs",
        "3",
        "--search.trials",
        "1",
        "--name",
        "s",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs" / "s" / "asked.yaml").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in out
    assert json.loads((tmp_path / "runs" / "s" / "result.json").read_text())["status"] == "stopped"


def kill_at(process, condition, seconds=120) -> None:
    """SIGKILL once the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the search ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_search_resumes_here_and_elsewhere_without_repeating_finished_trials(
    verb, started, tmp_path, cluster, monkeypatch
):
    """Killed with the cluster that it had started, resumed, killed again, and resumed from its copy in storage."""
    words = (*FAST, "--train.epochs", "4", "--search.trials", "5", "--search.scheduler", "none", "--storage", "far")
    folder, copy = tmp_path / "runs" / "s", tmp_path / "far" / "s"

    def ended():
        return {path.parent.name: path.with_name("history.jsonl") for path in copy.glob("trials/*/ended.json")}

    kill_at(started("tune", *words, "--search.vary", "optimizer.lr=1e-4..1e-2:log", "--name", "s"), lambda: ended())
    histories = {name: path.read_bytes() for name, path in ended().items()}
    assert not (folder / "result.json").exists()
    refused = verb("tune", "--resume", "runs/s", "--optimizer.lr", "1")
    assert (refused.code, "optimizer.lr cannot be changed" in refused.err) == (2, True)

    monkeypatch.setenv("RAY_ADDRESS", cluster)
    kill_at(started("tune", "--resume", "runs/s"), lambda: len(ended()) > len(histories))
    assert {name: (folder / "trials" / name / "history.jsonl").read_bytes() for name in histories} == histories
    histories |= {name: path.read_bytes() for name, path in ended().items()}
    shutil.rmtree(folder)

    done = verb("tune", "--resume", "s", "--storage", "far")
    assert done.code == 0, done.err
    assert done.result["trials"] == {"finished": 5, "stopped": 0, "unfinished": 0, "failed": 0}, done.out
    assert {name: ended()[name].read_bytes() for name in histories} == histories
    assert len(pq.read_table(folder / "trials.parquet")) == len(list(copy.glob("trials/*"))) == 5
    assert done.result["test_reads"] == 1
    names = {path.name for path in copy.iterdir()}
    assert names >= {"result.json", "trials.parquet", "search.html", "best.yaml", "trials", "bundle"}
    assert (copy / "bundle" / "bundle.json").exists()
    assert len(list(copy.glob("trials/*/bundle"))) <= 3
