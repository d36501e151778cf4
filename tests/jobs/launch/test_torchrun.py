"""`torchrun jobs/train.py`: the same verb and run folder, in several processes without Ray."""

import json
import subprocess
import sys

import pytest

from tests.conftest import command_of

SETTINGS = ("--model.name", "cnn", "--train.epochs", "2", "--data.batch", "128", "--train.precision", "fp32")
SETTINGS += ("--optimizer.name", "sgd", "--optimizer.lr", "0.02", "--augment.policy", "none", "--model.norm", "group")


@pytest.fixture
def torchrun(tmp_path):
    def run(*words: str):
        launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        launched += command_of("train", *words)[1:]
        return subprocess.run(launched, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)

    return run


def test_two_processes_train_the_same_model_as_one(torchrun, verb, tmp_path):
    done = torchrun(*SETTINGS, "--name", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   2/2") == 1  # only one process prints
    assert done.stdout.rstrip().endswith("runs/two")
    assert verb("train", *SETTINGS, "--name", "one").code == 0
    two, one = (json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in ("two", "one"))
    assert two["config"]["workers"]["count"] == 2
    assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-3)
    resumed = torchrun("--resume", "runs/two", "--train.epochs", "3")
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch   3/3" in resumed.stdout


def test_another_worker_count_than_torchrun_launched_is_refused(torchrun, tmp_path):
    done = torchrun(*SETTINGS, "--workers.count", "3")
    assert done.returncode != 0
    assert "--workers.count 3: torchrun has launched 2 workers already" in done.stderr
    assert not (tmp_path / "runs").exists()
