"""What a search tries next, without a cluster: the order, what the sampler remembers, what is never tried twice."""

import json

import optuna
import pytest

from classifier.config.experiment import Experiment
from classifier.search.space import Choice, Interval, Space, space_from
from jobs.search.best_epochs import BestEpochs
from jobs.search.searcher import Guide, Past, Seen, first_samples
from jobs.search.trial_config import read_trial_configs, trial_name

SPACE: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True), "data.batch": Choice((32, 64, 128))}


def experiment(**search) -> Experiment:
    return Experiment().override_all({f"search.{name}": value for name, value in search.items()})


def guide(tmp_path, base=None, past=None, space=SPACE, at_once=2) -> Guide:
    base = base or experiment()
    past = past or Past(first=first_samples(base, space, []))
    return Guide(
        base, lambda _: space, past, trials=tmp_path / "trials", at_once=lambda: at_once, best=BestEpochs(base)
    )


def record(searcher: Guide, trial_id: str, result: dict) -> None:
    """What Tune's callback does with a trial's report."""
    searcher.best.update(searcher.live[trial_id].name, result)


def run(guide: Guide, trial_id: str, accuracy: float, epochs: int = 20) -> dict | str | None:
    """One trial from its suggestion to its end."""
    config = guide.suggest(trial_id)
    if isinstance(config, dict):
        result = {"epoch": epochs, "accuracy": accuracy, "macro_f1": accuracy, "loss": 1 - accuracy}
        result["whole"] = epochs == 20
        record(guide, trial_id, result)
        guide.on_trial_complete(trial_id, result)
    return config


def test_the_recipe_then_the_portfolio_then_draws(tmp_path):
    portfolio = [{"optimizer.lr": 0.01}, {"optimizer.name": "muon", "optimizer.lr": 0.02}]
    first = first_samples(experiment(), SPACE, portfolio)
    tried = guide(tmp_path, past=Past(first=first))
    assert [run(tried, str(i), 0.5) for i in range(3)] == [{}, *portfolio]
    fourth = run(tried, "3", 0.5)
    assert isinstance(fourth, dict)
    assert set(fourth) <= set(SPACE)
    assert [sample.source for sample in read_trial_configs(tmp_path / "trials")] == [
        "recipe",
        "portfolio",
        "portfolio",
        "drawn",
    ]


def test_no_more_run_than_can_be_placed(tmp_path):
    tried = guide(tmp_path, at_once=2)
    assert tried.suggest("a") is not None
    assert tried.suggest("b") is not None
    assert tried.suggest("c") is None
    tried.on_trial_complete("a", None)
    assert tried.suggest("c") is not None


def test_draws_are_around_the_best_so_far(tmp_path):
    portfolio = [{"optimizer.name": "muon", "optimizer.lr": 0.02}]
    asked = []

    def space_around(changes):
        asked.append(changes)
        return SPACE

    first = first_samples(experiment(), SPACE, portfolio)
    tried = guide(tmp_path, past=Past(first=first), at_once=1)
    tried.space_around = space_around
    run(tried, "0", 0.5)
    run(tried, "1", 0.9)
    drawn = run(tried, "2", 0.7)
    assert asked == portfolio
    assert isinstance(drawn, dict)
    assert drawn["optimizer.name"] == "muon"
    saved = json.loads((tmp_path / "space.json").read_text())
    assert saved["base"] == portfolio[0]
    assert space_from((), saved["space"], experiment(), 1000) == SPACE


def test_the_sampler_remembers_what_it_did_not_draw(tmp_path):
    """A trial of the portfolio, one of an earlier search and a drawn one: all three lie in the study."""
    seen = [
        Seen({"optimizer.lr": 0.05, "data.batch": 32}, {"accuracy": 0.7}),
        Seen({"model.name": "cnn"}, {"accuracy": 1}),
    ]
    first = first_samples(experiment(), SPACE, [{"optimizer.lr": 0.01}])
    tried = guide(tmp_path, past=Past(first=first, seen=seen), at_once=1)
    for i, accuracy in enumerate((0.6, 0.5, 0.8)):
        run(tried, str(i), accuracy)
    assert tried.study is not None
    found = {(trial.params["optimizer.lr"], trial.value) for trial in tried.study.trials}
    assert {(3e-3, 0.6), (0.01, 0.5), (0.05, 0.7)} < found
    assert len(found) == 4  # what lies outside the space is no part of its model


def test_last_report_of_a_trial_counts(tmp_path):
    """Tune passes it to on_trial_complete, and not to on_trial_result."""
    searcher = guide(tmp_path, experiment(trials=3), at_once=1)
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


def test_a_trial_that_was_stopped_early_counts_as_pruned(tmp_path):
    tried = guide(tmp_path, at_once=1)
    run(tried, "0", 0.6)
    run(tried, "1", 0.3, epochs=2)
    assert tried.study is not None
    last = tried.study.trials[-1]
    assert last.state == optuna.trial.TrialState.PRUNED
    assert last.intermediate_values == {2: 0.3}


def test_a_trial_that_died_comes_back_and_is_given_up_in_the_end(tmp_path):
    tried = guide(tmp_path, experiment(trials=2), at_once=1)
    for i in range(6):
        assert tried.suggest(f"recipe{i}") == {}
        assert tried.suggest("other") is None
        tried.on_trial_complete(f"recipe{i}", error=True)
        assert tried.has_given_up(trial_name({})) == (i == 5)
    drawn = tried.suggest("drawn")
    assert isinstance(drawn, dict)
    assert drawn != {}
    tried.on_trial_complete("drawn", error=True)
    again = run(tried, "again", 0.7)
    assert again == drawn
    assert tried.study is not None
    assert [trial.value for trial in tried.study.trials] == [0.7]
    assert tried.suggest("third") == "FINISHED"


def test_the_end_waits_for_what_runs(tmp_path):
    tried = guide(tmp_path, experiment(trials=1), at_once=4)
    assert tried.suggest("a") == {}
    assert tried.suggest("b") is None
    tried.on_trial_complete("a", {"epoch": 20})
    assert tried.suggest("b") == "FINISHED"


@pytest.mark.parametrize("algorithm", ["tpe", "gp", "random"])
def test_nothing_is_tried_twice_and_a_small_space_ends(tmp_path, algorithm):
    space: Space = {"data.batch": Choice((32, 64, 128)), "model.name": Choice(("cnn", "resnet9_16"))}
    base = experiment(algorithm=algorithm)
    tried = guide(tmp_path, base, past=Past(first=first_samples(base, space, [])), space=space, at_once=1)
    configs = []
    while isinstance(config := run(tried, str(len(configs)), 0.5), dict):
        configs.append(json.dumps(config, sort_keys=True))
        assert len(configs) < 10
    assert config == "FINISHED"
    assert len(set(configs)) == len(configs) == 6


def test_a_resumed_search_replays_and_draws_anew(tmp_path):
    before = guide(tmp_path, at_once=1)
    configs = [run(before, str(i), 0.5 + i / 100) for i in range(5)]
    saved = json.loads((tmp_path / "space.json").read_text())
    past = Past(first=read_trial_configs(tmp_path / "trials"), base=saved["base"], space=SPACE)
    after = guide(tmp_path, past=past, at_once=1)
    again = [run(after, str(i), 0.5 + i / 100) for i in range(5)]
    assert again == configs
    new = run(after, "5", 0.9)
    assert new not in configs
    assert after.study is not None
    assert len(after.study.trials) == 6
    assert len(read_trial_configs(tmp_path / "trials")) == 6


def test_a_grid_is_the_recipe_and_every_combination(tmp_path):
    space: Space = {"data.batch": Choice((32, 64)), "model.name": Choice(("cnn", "resnet9_16"))}
    base = experiment(algorithm="grid")
    samples = first_samples(base, space, [])
    assert [sample.changes for sample in samples] == [
        {},
        {"data.batch": 32, "model.name": "cnn"},
        {"data.batch": 32},
        {"model.name": "cnn"},
    ]


def test_several_objectives_make_a_study_of_several_directions(tmp_path):
    base = experiment(objective=("accuracy", "latency"))
    tried = guide(tmp_path, base, past=Past(first=first_samples(base, SPACE, [])), at_once=1)
    for i in range(3):
        assert isinstance(tried.suggest(str(i)), dict)
        result = {"epoch": 20, "accuracy": 0.5, "loss": 0.5, "macro_f1": 0.5, "latency": 1.0 + i}
        record(tried, str(i), result)
        tried.on_trial_complete(str(i), result)
    assert tried.study is not None
    assert [trial.values for trial in tried.study.trials] == [[0.5, 1.0], [0.5, 2.0], [0.5, 3.0]]
