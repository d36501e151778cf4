"""Which settings mattered is said only of searches in which settings predict scores."""

from typing import Any

import numpy as np
import pytest

from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from classifier.search.space import Choice, Interval, Space
from jobs.search.importance import MIN_R2, compute_importance, predictability
from jobs.search.leaderboard import Leaderboard
from jobs.search.tuner import TrialEvent
from tests.jobs.search.conftest import search_plan

SPACE: Space = {
    "optimizer.lr": Interval(1e-4, 1e-2, log=True),
    "data.batch": Choice((32, 64, 128)),
    "loss.smoothing": Interval(0.0, 0.2),
}


def draw(rng: np.random.Generator) -> dict[str, Any]:
    lr = float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-2))))
    return {"optimizer.lr": lr, "data.batch": int(rng.choice([32, 64, 128])), "loss.smoothing": rng.uniform(0, 0.2)}


def accuracy_of(changes: dict[str, Any], rng: np.random.Generator) -> float:
    """Best at a learning rate of 1e-3, with a noise of half the learning rate's effect."""
    return 0.9 - 0.2 * float(np.log10(changes["optimizer.lr"] / 1e-3)) ** 2 + 0.03 * rng.normal()


def importance_of(folder, trials: int, *, is_noise: bool, seed: int = 0) -> dict[str, float]:
    board, rng = Leaderboard(RunFolder(folder), search_plan(Experiment(), SPACE)), np.random.default_rng(seed)
    for n in range(trials):
        changes = draw(rng)
        accuracy = rng.normal(0.9, 0.03) if is_noise else accuracy_of(changes, rng)
        report = {"epoch": 1, "whole": True, "seconds": 1.0, "loss": 0.5, "accuracy": accuracy}
        board.best_epochs.update(f"t{n}", report)
        board.record(TrialEvent(f"t{n}", changes, report), float(n))
    return compute_importance(board)


def test_setting_that_decides_the_score_is_the_most_important(tmp_path):
    importance = importance_of(tmp_path, 32, is_noise=False)
    assert next(iter(importance)) == "optimizer.lr"
    assert importance["optimizer.lr"] > 0.6
    assert sum(importance.values()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("trials", [1, 8, 11])
def test_few_trials_tell_nothing(tmp_path, trials):
    assert importance_of(tmp_path, trials, is_noise=False) == {}


def test_random_scores_rarely_have_important_settings(tmp_path):
    found = [seed for seed in range(10) if importance_of(tmp_path, 20, is_noise=True, seed=seed)]
    assert len(found) <= 1


def test_equal_scores_predict_nothing():
    rng = np.random.default_rng(0)
    trials = [draw(rng) for _ in range(20)]
    values = {name: [trial[name] for trial in trials] for name in SPACE}
    assert predictability(SPACE, values, [0.9] * 20) == 0.0
    assert predictability(SPACE, values, [accuracy_of(trial, rng) for trial in trials]) > MIN_R2
