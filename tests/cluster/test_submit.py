"""Slow: jobs submitted to a cluster of three machines, where `classifier` is not installed and a token is required."""

import json
import os
import shutil
import signal

import pytest

from tests.cluster.conftest import ROOT, Cluster
from tests.cluster.hosts import wait_for

pytestmark = pytest.mark.slow
TRAIN = ("python", "jobs/train.py", "--model.name", "cnn", "--data.batch", "64")


def test_requests_without_token_are_rejected(cluster: Cluster):
    assert cluster.http_get("/api/jobs/")[0] == 401
    assert cluster.http_get("/api/jobs/", "0" * 64)[0] == 403
    assert cluster.http_get("/api/jobs/", cluster.token)[0] == 200
    refused = cluster.ray("job", "list", RAY_AUTH_MODE="disabled")
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    # Ray leaves this open; cluster/README.md says so.
    assert cluster.head.run("curl", "-s", f"http://{cluster.head.address}:8265/api/gcs_healthz").stdout == "success"


def test_training_on_two_machines(cluster: Cluster):
    assert cluster.head.run(cluster.python, "-c", "import classifier").returncode != 0
    storage = cluster.shared / "storage"
    args = ("--workers.count", 2, "--train.epochs", 3, "--name", "two", "--out", "/tmp/runs", "--storage", storage)
    cluster.submit(*TRAIN, *args, name="train")
    assert cluster.wait_for_end("train") == "SUCCEEDED", cluster.logs("train")
    log = cluster.logs("train")
    assert "epoch 3/3" in log
    assert "finished after" in log
    assert json.loads((storage / "two" / "result.json").read_text())["status"] == "finished"
    machines = {
        line.split(" of ")[-1]
        for line in (storage / "two" / "worker.log").read_text().splitlines()
        if "process" in line
    }
    assert machines <= {"host2", "host3"}


def test_folder_that_is_not_shared_is_rejected(cluster: Cluster):
    cluster.submit(*TRAIN, "--workers.count", 2, "--name", "blind", "--out", "/tmp/runs", name="blind")
    assert cluster.wait_for_end("blind") == "FAILED"
    log = cluster.logs("blind")
    assert "is not shared with host2, host3" in log
    assert "--storage" in log


def test_results_in_the_session_folder_are_refused(cluster: Cluster):
    cluster.submit(*TRAIN, name="lost")
    assert cluster.wait_for_end("lost") == "FAILED"
    log = cluster.logs("lost")
    assert "the results would be lost: /tmp/ray/session_" in log
    assert "--storage" in log
    assert "epoch" not in log


def test_search_stops_saves_and_resumes(cluster: Cluster):
    """The repository is on each machine, as in an image, so the job needs no working directory."""
    out = cluster.shared / "runs"
    args = ("python", ROOT / "jobs" / "tune.py", "--model.name", "cnn", "--train.epochs", 40, "--search.trials", 6)
    args += ("--search.vary", "optimizer.lr=1e-4..1e-2:log", "--search.scheduler", "none", "--out", out, "--name", "s")
    cluster.submit(*args, name="tune", upload=False)
    wait_for(lambda: len(list(out.glob("s/trials/*/ended.json"))) >= 1, 200, "a trial to end")
    cluster.ray("job", "stop", "tune")
    assert cluster.wait_for_end("tune") == "STOPPED"
    result = json.loads((out / "s" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert (out / "s" / "bundle" / "bundle.json").exists()
    done = {p.parent.name: p.read_bytes() for p in out.glob("s/trials/*/ended.json")}
    cluster.submit("python", ROOT / "jobs" / "tune.py", "--resume", out / "s", name="again", upload=False)
    assert cluster.wait_for_end("again") == "SUCCEEDED", cluster.logs("again")
    result = json.loads((out / "s" / "result.json").read_text())
    assert result["trials"]["finished"] == 6
    assert all((out / "s" / "trials" / name / "ended.json").read_bytes() == content for name, content in done.items())


def test_killed_driver_resumes_from_storage(cluster: Cluster):
    storage = cluster.shared / "killed"
    args = ("--workers.count", 2, "--train.epochs", 30, "--checkpoint.steps", 20, "--name", "k", "--out", "/tmp/runs")
    cluster.submit(*TRAIN, *args, "--storage", storage, name="first")
    wait_for(lambda: list(storage.glob("k/checkpoints/*/manifest.json")), 200, "a checkpoint")
    drivers = cluster.head.processes("jobs/train.py")
    assert drivers
    for pid in drivers:
        os.kill(pid, signal.SIGKILL)
    assert cluster.wait_for_end("first") == "FAILED"
    assert (storage / "k" / "bundle" / "bundle.json").exists()
    shutil.rmtree(storage / "k" / "ray", ignore_errors=True)
    cluster.submit("python", "jobs/train.py", "--resume", "k", "--out", "/tmp/new", "--storage", storage, name="second")
    assert cluster.wait_for_end("second") == "SUCCEEDED", cluster.logs("second")
    rows = [json.loads(line) for line in (storage / "k" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 31))


def test_search_measures_and_refits_where_its_trials_run(cluster: Cluster):
    """The driver is on a head without cores for tasks, like a head without a GPU beside machines with GPUs."""
    storage = cluster.shared / "measured"
    args = ("python", "jobs/tune.py", "--model.name", "cnn", "--train.epochs", 4, "--search.trials", 3)
    args += ("--search.minutes", 3, "--search.final", "true", "--name", "m", "--out", "/tmp/runs")
    cluster.submit(*args, "--storage", storage, name="measured")
    assert cluster.wait_for_end("measured") == "SUCCEEDED", cluster.logs("measured")
    assert "refitting the winner" in cluster.logs("measured")
    result = json.loads((storage / "m" / "result.json").read_text())
    assert result["validation"] is None
    assert result["test"]["count"] == 331
    assert result["seconds"] < 180 + 20
    assert result["epochs"] == len((storage / "m" / "final" / "history.jsonl").read_text().splitlines())
    log = (storage / "m" / "final" / "worker.log").read_text()
    assert "of host2" in log or "of host3" in log
