"""What a search that is taken up again knows: its own trials, then what it had not come to."""

import json
from pathlib import Path

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.search.budget import ConclusionEstimate
from classifier.search.space import Choice, Interval, Space
from jobs.search.history import past_of
from jobs.search.plan import SearchPlan
from jobs.search.searcher import Past
from jobs.search.trial_config import TrialConfig

END = ConclusionEstimate(
    epoch_seconds=0.0, prediction_epochs=0.0, refit_epoch_factor=0.0, refit_epochs=1, max_refit_seconds=0.0
)


def known(folder: Path, space: Space, portfolio: list[dict] | None = None, **search: str) -> Past:
    experiment = Experiment().override_all({f"search.{name}": value for name, value in search.items()})
    plan = SearchPlan(
        experiment=experiment,
        space=space,
        is_own=not portfolio,
        at_once=1,
        reserved={},
        portfolio=portfolio or [],
        costs={},
        end=END,
    )
    return past_of(folder, plan, data.load(experiment.data))


def begin(folder: Path, past: Past, count: int) -> None:
    """The first trials are handed out, and then the search dies."""
    for number, sample in enumerate(past.first[:count]):
        TrialConfig(sample.changes, sample.source, sample.drawn, number).write(folder / "trials")


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_grid_goes_on_to_its_last_combination(tmp_path, count):
    space: Space = {"data.batch": Choice((16, 32)), "model.name": Choice(("cnn", "resnet9_16"))}
    unbroken = known(tmp_path, space, algorithm="grid")
    assert len(unbroken.first) == 5
    begin(tmp_path, unbroken, count)
    resumed = known(tmp_path, space, algorithm="grid")
    assert [sample.changes for sample in resumed.first] == [sample.changes for sample in unbroken.first]


def test_the_rest_of_the_portfolio_is_tried_until_the_search_draws(tmp_path):
    space: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True)}
    portfolio = [{"optimizer.lr": 0.01}, {"optimizer.name": "muon"}, {"optimizer.name": "sgd"}]
    begin(tmp_path, known(tmp_path, space, portfolio), 2)
    assert [sample.changes for sample in known(tmp_path, space, portfolio).first] == [{}, *portfolio]
    document = {"base": {}, "space": {name: values.plain() for name, values in space.items()}}
    (tmp_path / "space.json").write_text(json.dumps(document))
    assert [sample.changes for sample in known(tmp_path, space, portfolio).first] == [{}, portfolio[0]]


def test_a_population_goes_on_with_its_members_alone(tmp_path):
    space: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True)}
    assert [sample.source for sample in known(tmp_path, space, scheduler="pbt").first] == ["recipe"]
    for name in ("one", "two"):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "history.jsonl").write_text("")
        (tmp_path / "trials" / name / "changes.json").write_text(json.dumps({"optimizer.lr": 0.01}))
    first = known(tmp_path, space, scheduler="pbt").first
    assert [sample.changes for sample in first] == [{"start": n, "optimizer.lr": 0.01} for n in ("one", "two")]
