"""The leaderboard: which trials keep their models, and what it reads from their folders."""

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment
from classifier.errors import RunError
from classifier.runs.folder import RunFolder
from jobs.search.history import plan_lost_winner
from jobs.search.leaderboard import Leaderboard
from jobs.search.trial_config import TrialConfig
from jobs.search.tuner import TrialEvent
from tests.jobs.search.conftest import NO_CONCLUSION, search_plan


def board_in(folder, **changes: Any) -> Leaderboard:
    conclusion = dataclasses.replace(NO_CONCLUSION, trial_slowdown=2.0)
    return Leaderboard(RunFolder(folder), search_plan(Experiment().override_all(changes), conclusion=conclusion))


def report(board: Leaderboard, name: str, at: float, *, seconds: float = 1.0, **scores: float) -> None:
    (board.folder / "trials" / name / "bundle").mkdir(parents=True, exist_ok=True)
    (board.folder / "trials" / name / "bundle" / "bundle.json").touch()
    scores_of_epoch = {"epoch": 1, "whole": True, "seconds": seconds, "loss": 0.5, **scores}
    board.best_epochs.update(name, scores_of_epoch)
    board.record(TrialEvent(name, {}, scores_of_epoch), at)


def trials_with_models(board: Leaderboard) -> set[str]:
    return {path.parent.name for path in board.folder.glob("trials/*/bundle")}


def test_best_and_running_trials_keep_their_models(tmp_path):
    board, rng = board_in(tmp_path, **{"search.keep": 3}), random.Random(0)
    accuracies = {f"t{i}": rng.random() for i in range(40)}
    report(board, "runs", 0.0, accuracy=0.0)
    for i, (name, accuracy) in enumerate(accuracies.items(), start=1):
        report(board, name, float(i), accuracy=accuracy)
        board.record(TrialEvent(name, {}, {}, has_ended=True), float(i))
        best = sorted(list(accuracies)[:i], key=accuracies.__getitem__)[-3:]
        assert trials_with_models(board) == {"runs", *best}
    assert [row.trial for row in board.rank_rows()] == [*sorted(accuracies, key=accuracies.__getitem__)[::-1], "runs"]


def test_a_model_is_deleted_only_when_a_better_one_is_on_disk(tmp_path):
    """The best trial's model is missing, as after a kill: the next best keeps its own and wins."""
    board = board_in(tmp_path, **{"search.keep": 1})
    for name, accuracy in {"best": 0.9, "second": 0.8, "third": 0.7}.items():
        report(board, name, 0.0, accuracy=accuracy)
        Path(tmp_path / "trials" / name / "experiment.yaml").write_text(dump_experiment(board.experiment))
        if name == "best":
            shutil.rmtree(tmp_path / "trials" / name / "bundle")
        board.record(TrialEvent(name, {}, {}, has_ended=True), 0.0)
    assert trials_with_models(board) == {"second"}
    assert board.winner()[0].folder.name == "second"
    shutil.rmtree(tmp_path / "trials" / "second" / "bundle")
    with pytest.raises(RunError, match="has a model any more"):
        board.winner()


def test_the_best_trial_is_trained_again_if_no_model_is_left(tmp_path):
    board = board_in(tmp_path)
    config = TrialConfig({"optimizer.lr": 0.01}, "drawn")
    config.write(tmp_path / "trials")
    report(board, config.name, 0.0, accuracy=0.9)
    (tmp_path / "trials" / config.name / "ended.json").write_text("{}")
    assert plan_lost_winner(board.plan, board) is None
    shutil.rmtree(tmp_path / "trials" / config.name / "bundle")
    history = plan_lost_winner(board.plan, board)
    assert history is not None
    assert [one.name for one in history.pending] == [config.name]
    assert not (tmp_path / "trials" / config.name / "ended.json").exists()


def test_pareto_front_keeps_its_models(tmp_path):
    board, rng = board_in(tmp_path, **{"search.keep": 1, "search.objective": ("accuracy", "latency")}), random.Random(1)
    for i in range(40):
        report(board, f"t{i}", float(i), accuracy=rng.random(), latency=rng.random())
        board.record(TrialEvent(f"t{i}", {}, {}, has_ended=True), float(i))
        assert trials_with_models(board) == {row.trial for row in board.pareto_front()}


@pytest.mark.parametrize("file", ["sample.json", "changes.json"])  # the second: of a population
def test_unreported_epochs_are_read_from_the_trial_folders(tmp_path, file):
    trial, changes = tmp_path / "trials" / "a", {"train.epochs": 2}
    trial.mkdir(parents=True)
    (tmp_path / "trials" / "never started").mkdir()
    sample = {"number": 0, "source": "drawn", "changes": changes, "drawn": None}
    document = sample if file == "sample.json" else changes
    (trial / file).write_text(json.dumps(document))
    scores = ("accuracy", "macro_f1", "loss")
    lines = [
        {"epoch": epoch, "step": epoch, "seconds": 1.0, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5}
        | {f"validation_{name}": 1 / epoch for name in scores}
        | {"images_per_second": None}
        for epoch in (1, 2)
    ]
    (trial / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    board = board_in(tmp_path)
    board.catch_up(9.0)
    (row,) = board.rows.values()
    assert (row.changes, row.epochs, row.is_complete, row.best_at_seconds) == (changes, 2, True, 9.0)
    assert board.best(row)["epoch"] == 1


def test_epoch_seconds_are_those_of_the_leading_trial(tmp_path):
    board = board_in(tmp_path, **{"search.keep": 1})
    assert board.epoch_seconds() is None
    report(board, "slow", 0.0, seconds=8.0, accuracy=0.5)
    for name, seconds, accuracy in (("good", 4.0, 0.9), ("bad", 2.0, 0.1)):
        report(board, name, 1.0, seconds=seconds, accuracy=accuracy)
        board.record(TrialEvent(name, {}, {}, has_ended=True), 1.0)
    assert board.epoch_seconds() == pytest.approx(2.0)  # two trials share the machine
