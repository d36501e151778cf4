"""The searcher, without a cluster: the order of trials, what the sampler learns, what is not searcher twice."""

import json

import optuna
import pytest

from classifier.config.experiment import Experiment
from classifier.search.space import Choice, Interval, Space, parse_space
from jobs.search.best_epochs import BestEpochs
from jobs.search.searcher import Observation, Searcher, SearchHistory, initial_configs
from jobs.search.trial_config import read_trial_configs, trial_name

SPACE: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True), "data.batch": Choice((32, 64, 128))}


def experiment(**search) -> Experiment:
    return Experiment().override_all({f"search.{name}": value for name, value in search.items()})


def make_searcher(tmp_path, base=None, history=None, space=SPACE, at_once=2) -> Searcher:
    base = base or experiment()
    history = history or SearchHistory(pending=initial_configs(base, space, []))
    return Searcher(
        base,
        lambda _: space,
        history,
        trials=tmp_path / "trials",
        max_concurrent=lambda: at_once,
        best_epochs=BestEpochs(base),
    )


def record(searcher: Searcher, trial_id: str, result: dict) -> None:
    """Record a report as Tune's callback does."""
    searcher.best_epochs.update(searcher.running[trial_id].name, result)


def run(searcher: Searcher, trial_id: str, accuracy: float, epochs: int = 20) -> dict | str | None:
    """Run one trial from its suggestion to its end."""
    config = searcher.suggest(trial_id)
    if isinstance(config, dict):
        result = {"epoch": epochs, "accuracy": accuracy, "macro_f1": accuracy, "loss": 1 - accuracy}
        result["whole"] = epochs == 20
        record(searcher, trial_id, result)
        searcher.on_trial_complete(trial_id, result)
    return config


def test_recipe_then_portfolio_then_draws(tmp_path):
    portfolio = [{"optimizer.lr": 0.01}, {"optimizer.name": "muon", "optimizer.lr": 0.02}]
    first = initial_configs(experiment(), SPACE, portfolio)
    searcher = make_searcher(tmp_path, history=SearchHistory(pending=first))
    assert [run(searcher, str(i), 0.5) for i in range(3)] == [{}, *portfolio]
    fourth = run(searcher, "3", 0.5)
    assert isinstance(fourth, dict)
    assert set(fourth) <= set(SPACE)
    assert [sample.source for sample in read_trial_configs(tmp_path / "trials")] == [
        "recipe",
        "portfolio",
        "portfolio",
        "drawn",
    ]


def test_no_more_trials_run_than_the_limit(tmp_path):
    searcher = make_searcher(tmp_path, at_once=2)
    assert searcher.suggest("a") is not None
    assert searcher.suggest("b") is not None
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", None)
    assert searcher.suggest("c") is not None


def test_draws_are_around_the_best_trial(tmp_path):
    portfolio = [{"optimizer.name": "muon", "optimizer.lr": 0.02}]
    asked = []

    def space_around(changes):
        asked.append(changes)
        return SPACE

    first = initial_configs(experiment(), SPACE, portfolio)
    searcher = make_searcher(tmp_path, history=SearchHistory(pending=first), at_once=1)
    searcher.make_space = space_around
    run(searcher, "0", 0.5)
    run(searcher, "1", 0.9)
    drawn = run(searcher, "2", 0.7)
    assert asked == portfolio
    assert isinstance(drawn, dict)
    assert drawn["optimizer.name"] == "muon"
    saved = json.loads((tmp_path / "space.json").read_text())
    assert saved["base"] == portfolio[0]
    assert parse_space((), saved["space"], experiment(), 1000) == SPACE


def test_a_linear_probe_comes_first_and_nothing_is_drawn_around_it(tmp_path):
    first = initial_configs(experiment(), SPACE, [{"model.probe": True, "train.epochs": 1}])
    searcher = make_searcher(tmp_path, history=SearchHistory(pending=first), at_once=1)
    assert run(searcher, "0", 0.9) == first[0].changes == {"model.probe": True, "train.epochs": 1}
    assert run(searcher, "1", 0.5) == {}
    drawn = run(searcher, "2", 0.7)
    assert isinstance(drawn, dict)
    assert not searcher.base_changes
    assert set(drawn) <= set(SPACE)


def test_sampler_learns_from_trials_that_it_did_not_draw(tmp_path):
    """A trial of the portfolio, one of an earlier search and a drawn one: all three are in the study."""
    observations = [
        Observation({"optimizer.lr": 0.05, "data.batch": 32}, {"accuracy": 0.7}),
        Observation({"model.name": "cnn"}, {"accuracy": 1}),
    ]
    first = initial_configs(experiment(), SPACE, [{"optimizer.lr": 0.01}])
    searcher = make_searcher(tmp_path, history=SearchHistory(pending=first, observations=observations), at_once=1)
    for i, accuracy in enumerate((0.6, 0.5, 0.8)):
        run(searcher, str(i), accuracy)
    assert searcher.study is not None
    found = {(trial.params["optimizer.lr"], trial.value) for trial in searcher.study.trials}
    assert {(3e-3, 0.6), (0.01, 0.5), (0.05, 0.7)} < found
    assert len(found) == 4  # trials outside the space are not


def test_last_report_of_a_trial_counts(tmp_path):
    """Tune passes it to on_trial_complete, and not to on_trial_result."""
    searcher = make_searcher(tmp_path, experiment(trials=3), at_once=1)
    run(searcher, "0", 0.6)
    searcher.suggest("1")
    scores = {"accuracy": 0.9, "macro_f1": 0.9, "loss": 0.1}
    record(searcher, "1", scores)
    searcher.on_trial_complete("1", {"epoch": 1, "whole": True} | scores)
    searcher.suggest("2")
    record(searcher, "2", scores)
    searcher.on_trial_complete("2", {"epoch": 1, "whole": False} | scores)
    assert searcher.study is not None
    assert [trial.value for trial in searcher.study.trials] == [0.6, 0.9, 0.9]
    assert searcher.study.trials[-1].state == optuna.trial.TrialState.PRUNED


def test_stopped_trial_counts_as_pruned(tmp_path):
    searcher = make_searcher(tmp_path, at_once=1)
    run(searcher, "0", 0.6)
    run(searcher, "1", 0.3, epochs=2)
    assert searcher.study is not None
    last = searcher.study.trials[-1]
    assert last.state == optuna.trial.TrialState.PRUNED
    assert last.intermediate_values == {2: 0.3}


def test_crashed_trial_is_restarted_until_it_is_given_up(tmp_path):
    searcher = make_searcher(tmp_path, experiment(trials=2), at_once=1)
    for i in range(6):
        assert searcher.suggest(f"recipe{i}") == {}
        assert searcher.suggest("other") is None
        searcher.on_trial_complete(f"recipe{i}", error=True)
        assert searcher.has_given_up(trial_name({})) == (i == 5)
    drawn = searcher.suggest("drawn")
    assert isinstance(drawn, dict)
    assert drawn != {}
    searcher.on_trial_complete("drawn", error=True)
    again = run(searcher, "again", 0.7)
    assert again == drawn
    assert searcher.study is not None
    assert [trial.value for trial in searcher.study.trials] == [0.7]
    assert searcher.suggest("third") == "FINISHED"


def test_search_does_not_finish_while_a_trial_runs(tmp_path):
    searcher = make_searcher(tmp_path, experiment(trials=1), at_once=4)
    assert searcher.suggest("a") == {}
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", {"epoch": 20})
    assert searcher.suggest("b") == "FINISHED"


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "random"])
def test_no_trial_is_repeated_and_a_small_space_is_exhausted(tmp_path, algorithm):
    space: Space = {"data.batch": Choice((32, 64, 128)), "model.name": Choice(("cnn", "resnet9_16"))}
    base = experiment(algorithm=algorithm)
    searcher = make_searcher(
        tmp_path, base, history=SearchHistory(pending=initial_configs(base, space, [])), space=space, at_once=1
    )
    configs = []
    while isinstance(config := run(searcher, str(len(configs)), 0.5), dict):
        configs.append(json.dumps(config, sort_keys=True))
        assert len(configs) < 10
    assert config == "FINISHED"
    assert len(set(configs)) == len(configs) == 6


def test_resumed_search_replays_its_trials_and_draws_new_ones(tmp_path):
    before = make_searcher(tmp_path, at_once=1)
    configs = [run(before, str(i), 0.5 + i / 100) for i in range(5)]
    saved = json.loads((tmp_path / "space.json").read_text())
    history = SearchHistory(pending=read_trial_configs(tmp_path / "trials"), base_changes=saved["base"], space=SPACE)
    after = make_searcher(tmp_path, history=history, at_once=1)
    again = [run(after, str(i), 0.5 + i / 100) for i in range(5)]
    assert again == configs
    new = run(after, "5", 0.9)
    assert new not in configs
    assert after.study is not None
    assert len(after.study.trials) == 6
    assert len(read_trial_configs(tmp_path / "trials")) == 6


def test_grid_is_the_recipe_and_every_combination(tmp_path):
    space: Space = {"data.batch": Choice((32, 64)), "model.name": Choice(("cnn", "resnet9_16"))}
    base = experiment(algorithm="grid")
    samples = initial_configs(base, space, [])
    assert [sample.changes for sample in samples] == [
        {},
        {"data.batch": 32, "model.name": "cnn"},
        {"data.batch": 32},
        {"model.name": "cnn"},
    ]


def test_several_objectives_have_several_directions(tmp_path):
    base = experiment(objective=("accuracy", "latency"))
    searcher = make_searcher(tmp_path, base, history=SearchHistory(pending=initial_configs(base, SPACE, [])), at_once=1)
    for i in range(3):
        assert isinstance(searcher.suggest(str(i)), dict)
        result = {"epoch": 20, "accuracy": 0.5, "loss": 0.5, "macro_f1": 0.5, "latency": 1.0 + i}
        record(searcher, str(i), result)
        searcher.on_trial_complete(str(i), result)
    assert searcher.study is not None
    assert [trial.values for trial in searcher.study.trials] == [[0.5, 1.0], [0.5, 2.0], [0.5, 3.0]]
