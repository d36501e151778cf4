"""Slow: searches that are killed again and again lose nothing."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

TRIALS = 8
WORDS = ("--model.name", "cnn", "--data.batch", "128", "--train.epochs", "6", "--search.trials", str(TRIALS))
WORDS += ("--search.scheduler", "none", "--search.vary", "optimizer.lr=1e-4..1e-2:log", "--name", "s")


def ended(folder: Path) -> dict[str, bytes]:
    """The histories of the trials that have ended."""
    return {p.parent.name: (p.parent / "history.jsonl").read_bytes() for p in folder.glob("trials/*/ended.json")}


def assert_complete(folder: Path, result: dict) -> None:
    trials = pq.read_table(folder / "trials.parquet").to_pylist()
    assert len(trials) == len({row["trial"] for row in trials}) == TRIALS
    assert {row["status"] for row in trials} == {"finished"}
    assert result["trials"] == {"finished": TRIALS, "stopped": 0, "unfinished": 0, "failed": 0}
    assert (result["status"], result["test_reads"]) == ("finished", 1)


def test_driver_killed_five_times(verb, started, tmp_path):
    rng, folder = random.Random(0), tmp_path / "runs" / "s"
    before: dict[str, bytes] = {}
    for kill in range(5):
        words = ("--resume", "runs/s") if kill else WORDS
        process = started("tune", *words)
        began, wanted = time.monotonic(), len(list(folder.glob("trials/*")))
        while len(list(folder.glob("trials/*"))) <= min(wanted, TRIALS - 2) and process.poll() is None:
            assert time.monotonic() - began < 120
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1.5))
        assert process.poll() is None, "the search ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = ended(folder)
        assert {name: now[name] for name in before} == before
        before = now
    done = verb("tune", "--resume", "runs/s")
    assert done.code == 0, done.err
    now = ended(folder)
    assert {name: now[name] for name in before} == before
    assert_complete(folder, done.result)


def actors_of(driver: int) -> list[int]:
    """Trial processes of the Ray cluster that this driver started: only its own descendants."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue

    def is_descendant(pid: int) -> bool:
        while pid > 1:
            if pid == driver:
                return True
            pid = parents.get(pid, 0)
        return False

    return [pid for pid, name in names.items() if "TrialActor" in name and is_descendant(pid)]


def test_workers_killed_five_times(started, tmp_path):
    rng, folder = random.Random(1), tmp_path / "runs" / "s"
    process = started("tune", *WORDS, "--train.epochs", "300")  # long enough to be killed
    kills, began = 0, time.monotonic()
    while kills < 5:
        assert process.poll() is None, f"the search ended after {kills} kills"
        assert time.monotonic() - began < 240
        time.sleep(rng.uniform(0.2, 1.0))
        actors = actors_of(process.pid)
        if actors and list(folder.glob("trials/*/history.jsonl")):
            os.kill(rng.choice(actors), signal.SIGKILL)
            kills += 1
            time.sleep(2)
    assert process.wait(timeout=900) == 0  # ten minutes on a slow machine
    assert_complete(folder, json.loads((folder / "result.json").read_text()))


def test_trials_of_several_workers_do_not_deadlock(verb):
    """Two cores, trials of two workers: one runs after the other, each with a placement of its own."""
    words = ("--model.name", "cnn", "--data.batch", "128", "--train.epochs", "2", "--search.trials", "3")
    done = verb("tune", *words, "--workers.count", "2", "--search.scheduler", "none", "--search.portfolio", "false")
    assert done.code == 0, done.err
    assert done.result["trials"] == {"finished": 3, "stopped": 0, "unfinished": 0, "failed": 0}
