"""`torchrun jobs/train.py`: the same verb and run folder, in several processes without Ray."""

import json
import socket
import subprocess
import sys

import pytest

from tests.conftest import command_of, start_verb

SETTINGS = ("--model.name", "cnn", "--train.epochs", "2", "--data.batch", "128", "--train.precision", "fp32")
SETTINGS += ("--optimizer.name", "sgd", "--optimizer.lr", "0.02", "--augment.policy", "none", "--model.norm", "group")


@pytest.fixture
def two_ranks(tmp_path, monkeypatch):
    """The two processes that torchrun would launch with these arguments, with its environment."""

    def run(*words: str) -> list[tuple[int, str, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        elastic = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = []
        for rank in ("0", "1"):
            for name, value in (elastic | {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}).items():
                monkeypatch.setenv(name, value)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            processes.append(start_verb("train", *words, cwd=tmp_path, **pipes))
        texts = [process.communicate(240) for process in processes]
        return [(process.wait(), *text) for process, text in zip(processes, texts, strict=True)]

    return run


def test_two_processes_train_the_same_model_as_one(verb, two_ranks, tmp_path):
    one = verb("train", *SETTINGS, "--name", "one").result
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launched += command_of("train", *SETTINGS, "--name", "two")[1:]
    done = subprocess.run(launched, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1  # only one process prints
    assert done.stdout.rstrip().endswith("runs/two")
    two = json.loads((tmp_path / "runs" / "two" / "result.json").read_text())
    assert two["config"]["workers"]["count"] == 2
    assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-3)
    (code, out, err), follower = two_ranks("--resume", "runs/two", "--train.epochs", "3")
    assert (code, follower[0]) == (0, 0), err + follower[2]
    assert "epoch 3/3" in out
    assert "epoch" not in follower[1]


def test_another_worker_count_than_torchrun_launched_is_refused(two_ranks, tmp_path):
    (code, _, err), follower = two_ranks(*SETTINGS, "--workers.count", "3")
    assert code != 0
    assert follower[0] != 0
    assert "--workers.count 3: torchrun has launched 2 workers already" in err
    assert not (tmp_path / "runs").exists()
