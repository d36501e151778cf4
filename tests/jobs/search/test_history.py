"""What a resumed search knows: its own trials, then those that it has not started."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.search.space import Choice, Interval, Space
from jobs.search.history import load_history, plan_longer_trial
from jobs.search.searcher import SearchHistory
from jobs.search.trial_config import TrialConfig
from tests.jobs.search.conftest import search_plan


def load(folder: Path, space: Space, portfolio: list[dict] | None = None, **search: str) -> SearchHistory:
    experiment = Experiment().override_all({f"search.{name}": value for name, value in search.items()})
    plan = search_plan(experiment, space, has_user_space=not portfolio, portfolio=portfolio or [])
    return load_history(folder, plan, data.load(experiment.data))


def start_trials(folder: Path, history: SearchHistory, count: int) -> None:
    """Start the first trials, as a search does that is then killed."""
    for number, config in enumerate(history.pending[:count]):
        TrialConfig(config.changes, config.source, config.drawn, number).write(folder / "trials")


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_resumed_grid_has_every_combination(tmp_path, count):
    space: Space = {"data.batch": Choice((16, 32)), "model.name": Choice(("cnn", "resnet9_16"))}
    unbroken = load(tmp_path, space, algorithm="grid")
    assert len(unbroken.pending) == 5
    start_trials(tmp_path, unbroken, count)
    resumed = load(tmp_path, space, algorithm="grid")
    assert [config.changes for config in resumed.pending] == [config.changes for config in unbroken.pending]


def test_rest_of_the_portfolio_is_tried_until_the_search_draws(tmp_path):
    space: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True)}
    portfolio = [{"optimizer.lr": 0.01}, {"optimizer.name": "muon"}, {"optimizer.name": "sgd"}]
    start_trials(tmp_path, load(tmp_path, space, portfolio), 2)
    assert [config.changes for config in load(tmp_path, space, portfolio).pending] == [{}, *portfolio]
    document = {"base": {}, "space": {name: values.to_plain() for name, values in space.items()}}
    (tmp_path / "space.json").write_text(json.dumps(document))
    assert [config.changes for config in load(tmp_path, space, portfolio).pending] == [{}, portfolio[0]]


def test_folder_of_trials_keeps_what_is_no_trial(tmp_path):
    trials = tmp_path / "trials"
    for folder in (trials / "0a1b2c3d", trials / "my notes", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (trials / "linked").symlink_to(tmp_path / "elsewhere")
    (trials / ".DS_Store").touch()
    assert [config.source for config in load(tmp_path, {}).pending] == ["recipe"]
    assert {path.name for path in trials.iterdir()} == {"my notes", "linked", ".DS_Store"}


def test_resumed_population_has_its_members_only(tmp_path):
    space: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True)}
    assert [config.source for config in load(tmp_path, space, scheduler="pbt").pending] == ["recipe"]
    for name in ("one", "two"):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "history.jsonl").write_text("")
        (tmp_path / "trials" / name / "changes.json").write_text(json.dumps({"optimizer.lr": 0.01}))
    first = load(tmp_path, space, scheduler="pbt").pending
    assert [config.changes for config in first] == [{"start": n, "optimizer.lr": 0.01} for n in ("one", "two")]


def test_search_without_a_time_limit_plans_no_longer_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.search.history.read_history", lambda folder: [{"seconds": 2.0}])
    row = SimpleNamespace(is_complete=True, changes={}, trial="a")
    board = SimpleNamespace(folder=tmp_path, rows={"a": row}, rank_rows=lambda: [row])
    conclusion = SimpleNamespace(refit_epoch_factor=0.0)
    plan = SimpleNamespace(
        experiment=Experiment(), search_share=1, is_single=True, epoch_overhead=1.0, conclusion=conclusion
    )
    clock = SimpleNamespace(training_seconds_left=lambda step_seconds: math.inf)
    assert plan_longer_trial(cast(Any, plan), cast(Any, board), cast(Any, clock)) is None
