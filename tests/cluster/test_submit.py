"""Slow: jobs submitted to a cluster of three machines, where `classifier` is not installed and a token is asked for."""

import json
import os
import shutil
import signal

import pytest

from tests.cluster.conftest import ROOT, Cluster
from tests.cluster.hosts import wait_for

pytestmark = pytest.mark.slow
TRAIN = ("python", "jobs/train.py", "--model.name", "cnn", "--data.batch", "64")


def test_who_has_no_token_is_refused(three: Cluster):
    assert three.ask("/api/jobs/")[0] == 401
    assert three.ask("/api/jobs/", "0" * 64)[0] == 403
    assert three.ask("/api/jobs/", three.token)[0] == 200
    refused = three.ray("job", "list", RAY_AUTH_MODE="disabled")
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    # What Ray leaves open; the README says so.
    assert three.head.run("curl", "-s", f"http://{three.head.address}:8265/api/gcs_healthz").stdout == "success"


def test_a_training_on_both_machines_is_submitted_and_read(three: Cluster):
    assert three.head.run(three.python, "-c", "import classifier").returncode != 0
    storage = three.shared / "storage"
    words = ("--workers.count", 2, "--train.epochs", 3, "--name", "two", "--out", "/tmp/runs", "--storage", storage)
    three.submit(*TRAIN, *words, name="train")
    assert three.ended("train") == "SUCCEEDED", three.logs("train")
    said = three.logs("train")
    assert "epoch   3/3" in said
    assert "finished after" in said
    assert json.loads((storage / "two" / "result.json").read_text())["status"] == "finished"
    where = {
        line.split(" of ")[-1]
        for line in (storage / "two" / "worker.log").read_text().splitlines()
        if "process" in line
    }
    assert where <= {"host2", "host3"}


def test_a_folder_that_not_all_machines_see_is_refused(three: Cluster):
    three.submit(*TRAIN, "--workers.count", 2, "--name", "blind", "--out", "/tmp/runs", name="blind")
    assert three.ended("blind") == "FAILED"
    said = three.logs("blind")
    assert "is not on host2, host3" in said
    assert "--storage" in said


def test_a_search_is_stopped_saves_and_goes_on(three: Cluster):
    """The repository lies on each machine, as in an image: it needs no working directory."""
    out = three.shared / "runs"
    words = ("python", ROOT / "jobs" / "tune.py", "--model.name", "cnn", "--train.epochs", 40, "--search.trials", 6)
    words += ("--search.vary", "optimizer.lr=1e-4..1e-2:log", "--search.scheduler", "none", "--out", out, "--name", "s")
    three.submit(*words, name="tune", here=False)
    wait_for(lambda: len(list(out.glob("s/trials/*/ended.json"))) >= 1, 200, "a trial's end")
    three.ray("job", "stop", "tune")
    assert three.ended("tune") == "STOPPED"
    result = json.loads((out / "s" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert (out / "s" / "bundle" / "bundle.json").exists()
    done = {p.parent.name: p.read_bytes() for p in out.glob("s/trials/*/ended.json")}
    three.submit("python", ROOT / "jobs" / "tune.py", "--resume", out / "s", name="again", here=False)
    assert three.ended("again") == "SUCCEEDED", three.logs("again")
    result = json.loads((out / "s" / "result.json").read_text())
    assert result["trials"]["finished"] == 6
    assert all((out / "s" / "trials" / name / "ended.json").read_bytes() == content for name, content in done.items())


def test_a_driver_that_is_killed_goes_on_from_storage(three: Cluster):
    storage = three.shared / "killed"
    words = ("--workers.count", 2, "--train.epochs", 30, "--checkpoint.steps", 20, "--name", "k", "--out", "/tmp/runs")
    three.submit(*TRAIN, *words, "--storage", storage, name="first")
    wait_for(lambda: list(storage.glob("k/checkpoints/*/manifest.json")), 200, "a checkpoint")
    drivers = three.head.processes("jobs/train.py")
    assert drivers
    for pid in drivers:
        os.kill(pid, signal.SIGKILL)
    assert three.ended("first") == "FAILED"
    assert (storage / "k" / "bundle" / "bundle.json").exists()
    shutil.rmtree(storage / "k" / "ray", ignore_errors=True)
    three.submit("python", "jobs/train.py", "--resume", "k", "--out", "/tmp/new", "--storage", storage, name="second")
    assert three.ended("second") == "SUCCEEDED", three.logs("second")
    rows = [json.loads(line) for line in (storage / "k" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 31))


def test_a_search_measures_and_trains_last_where_its_trials_run(three: Cluster):
    """The driver is on a head that gives no core away, as one without a GPU beside machines that have some."""
    storage = three.shared / "measured"
    words = ("python", "jobs/tune.py", "--model.name", "cnn", "--train.epochs", 4, "--search.trials", 3)
    words += ("--search.minutes", 3, "--search.final", "true", "--name", "m", "--out", "/tmp/runs")
    three.submit(*words, "--storage", storage, name="measured")
    assert three.ended("measured") == "SUCCEEDED", three.logs("measured")
    assert "refitting the winner" in three.logs("measured")
    result = json.loads((storage / "m" / "result.json").read_text())
    assert result["validation"] is None
    assert result["test"]["count"] == 331
    assert result["seconds"] < 180 + 20
    assert result["epochs"] == len((storage / "m" / "final" / "history.jsonl").read_text().splitlines())
    said = (storage / "m" / "final" / "worker.log").read_text()
    assert "of host2" in said or "of host3" in said
