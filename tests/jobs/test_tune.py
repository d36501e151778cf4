"""`jobs/tune.py` and training on several workers, on a Ray cluster that each command starts for itself."""

import json
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest
import yaml

from classifier.config import Experiment
from classifier.run import read_experiment

FAST = ("--model.name", "cnn", "--data.batch", "128")


@pytest.fixture(scope="module")
def search(verb_in, tmp_path_factory):
    """One search that several tests look at."""
    words = ("--train.epochs", "3", "--search.grace", "1", "--search.trials", "5", "--name", "s")
    vary = ("--search.vary", "optimizer.lr=1e-3,1e-2,3e-3", "model.name=cnn,resnet9_16", "optimizer.clip=1,1e30")
    return verb_in(tmp_path_factory.mktemp("search"), "tune", *FAST, *words, *vary)


def test_a_search_ends_with_a_table_a_winner_and_its_test(search):
    assert search.code == 0, search.err
    result = search.result
    assert (result["kind"], result["status"]) == ("tune", "finished")
    assert sum(result["trials"].values()) == 5
    assert result["test"]["accuracy"] > 0.5
    assert result["test_reads"] == 1
    trials = pq.read_table(search.folder / "trials.parquet").to_pylist()
    assert len(trials) == 5
    best = max(trials, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert trials[0] == best
    assert result["winner"] == best["trial"]
    assert result["validation"]["accuracy"] == best["validation_accuracy"]
    assert result["validation"]["loss"] == pytest.approx(best["validation_loss"])
    assert best["trial"] in search.out
    assert {row["status"] for row in trials} <= {"finished", "stopped"}


def test_every_trial_trained_what_was_sampled_for_it(search):
    for row in pq.read_table(search.folder / "trials.parquet").to_pylist():
        trained = read_experiment(search.folder / "trials" / row["trial"] / "experiment.yaml")
        for name in ("optimizer.lr", "model.name", "optimizer.clip"):
            assert trained.get(name) == row[name]


def test_the_recipe_is_the_first_trial(search):
    trials = pq.read_table(search.folder / "trials.parquet").to_pylist()
    own = Experiment().optimizer.lr
    assert any((row["optimizer.lr"], row["model.name"]) == (own, "cnn") for row in trials)


def test_best_yaml_is_a_whole_experiment(search):
    winner = pq.read_table(search.folder / "trials.parquet").to_pylist()[0]
    best = yaml.safe_load((search.folder / "best.yaml").read_text())
    assert best["optimizer"]["lr"] == winner["optimizer.lr"]
    assert best["data"]["size"] == 8


def test_a_search_folder_serves_as_a_run(search, verb):
    done = verb("evaluate", search.folder)
    assert done.code == 0, done.err
    assert done.result["test"] == search.result["test"]
    assert "--again" in done.out
    again = verb("train", "--experiment", search.folder / "best.yaml", "--train.epochs", "1")
    assert again.code == 0, again.err


def test_ctrl_c_ends_a_search_with_the_best_so_far(command, tmp_path):
    words = command("tune", *FAST, "--train.epochs", "300", "--search.trials", "50", "--name", "s")
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/s/trials/*/bundle/bundle.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    result = json.loads((tmp_path / "runs" / "s" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert result["validation"]["count"] == 162
    assert (tmp_path / "runs" / "s" / "bundle" / "bundle.json").exists()


def test_two_workers_train_together(verb):
    settings = (*FAST, "--train.epochs", "4", "--train.precision", "fp32", "--model.norm", "group")
    settings += ("--optimizer.name", "sgd", "--optimizer.lr", "0.02", "--augment.policy", "none")
    done = verb("train", *settings, "--workers.count", "2", "--name", "two")
    assert done.code == 0, done.err
    assert done.result["config"]["workers"]["count"] == 2
    assert done.result["epochs"] == 4
    assert "epoch   4/4" in done.out
    one = verb("train", *settings, "--name", "one").result
    assert done.result["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-3)
    resumed = verb("train", "--resume", "runs/two", "--train.epochs", "5", "--workers.count", "1")
    assert resumed.code == 0, resumed.err
    assert resumed.result["epochs"] == 5
