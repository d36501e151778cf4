"""Which trials keep their models while a search goes on."""

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest

from classifier.config.experiment import Experiment
from jobs.search.leaderboard import Leaderboard
from jobs.search.tuner import Event


def board_in(folder, **changes: Any) -> Leaderboard:
    plan: Any = SimpleNamespace(
        experiment=Experiment().override_all(changes), end=SimpleNamespace(trial_slowdown=2.0), space={}, costs={}
    )
    return Leaderboard(SimpleNamespace(folder=folder, storage=None), plan)  # pyright: ignore[reportArgumentType]


def report(board: Leaderboard, name: str, at: float, *, seconds: float = 1.0, **scores: float) -> None:
    (board.folder / "trials" / name / "bundle").mkdir(parents=True, exist_ok=True)
    said = {"epoch": 1, "whole": True, "seconds": seconds, "loss": 0.5, **scores}
    board.best_epochs.update(name, said)
    board.take(Event(name, {}, said), at)


def with_models(board: Leaderboard) -> set[str]:
    return {path.parent.name for path in board.folder.glob("trials/*/bundle")}


def test_the_best_keep_their_models_and_those_that_run(tmp_path):
    board, rng = board_in(tmp_path, **{"search.keep": 3}), random.Random(0)
    accuracies = {f"t{i}": rng.random() for i in range(40)}
    report(board, "runs", 0.0, accuracy=0.0)
    for i, (name, accuracy) in enumerate(accuracies.items(), start=1):
        report(board, name, float(i), accuracy=accuracy)
        board.take(Event(name, {}, {}, ended=True), float(i))
        best = sorted(list(accuracies)[:i], key=accuracies.__getitem__)[-3:]
        assert with_models(board) == {"runs", *best}
    assert [row.trial for row in board.ranked()] == [*sorted(accuracies, key=accuracies.__getitem__)[::-1], "runs"]


def test_the_front_keeps_its_models_too(tmp_path):
    board, rng = board_in(tmp_path, **{"search.keep": 1, "search.objective": ("accuracy", "latency")}), random.Random(1)
    for i in range(40):
        report(board, f"t{i}", float(i), accuracy=rng.random(), latency=rng.random())
        board.take(Event(f"t{i}", {}, {}, ended=True), float(i))
        assert with_models(board) == {row.trial for row in board.front()}


@pytest.mark.parametrize("file", ["sample.json", "changes.json"])  # the second: of a population
def test_epochs_that_were_not_reported_are_read_from_the_folders(tmp_path, file):
    trial, changes = tmp_path / "trials" / "a", {"train.epochs": 2}
    trial.mkdir(parents=True)
    (tmp_path / "trials" / "never started").mkdir()
    document = {"changes": changes} if file == "sample.json" else changes
    (trial / file).write_text(json.dumps(document))
    scores = ("accuracy", "macro_f1", "loss")
    lines = [
        {"epoch": epoch, "seconds": 1.0} | {f"validation_{name}": 1 / epoch for name in scores} for epoch in (1, 2)
    ]
    (trial / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    board = board_in(tmp_path)
    board.catch_up(9.0)
    (row,) = board.rows.values()
    assert (row.sample, row.epochs, row.whole, row.at) == (changes, 2, True, 9.0)
    assert board.best(row)["epoch"] == 1


def test_an_epoch_takes_what_the_leaders_took_lately(tmp_path):
    board = board_in(tmp_path, **{"search.keep": 1})
    assert board.epoch_seconds() is None
    report(board, "slow", 0.0, seconds=8.0, accuracy=0.5)
    for name, seconds, accuracy in (("good", 4.0, 0.9), ("bad", 2.0, 0.1)):
        report(board, name, 1.0, seconds=seconds, accuracy=accuracy)
        board.take(Event(name, {}, {}, ended=True), 1.0)
    assert board.epoch_seconds() == pytest.approx(2.0)  # two trials share the machine
