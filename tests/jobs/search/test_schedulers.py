"""Schedulers by setting, and our own for several objectives."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, PopulationBasedTraining

from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.search.space import default_space
from jobs.search.schedulers import ParetoScheduler, choose_grace, make_scheduler, rung_epochs


def scheduler_of(**search) -> Any:
    changes = {"train.epochs": 9} | {f"search.{name}": value for name, value in search.items()}
    experiment = Experiment().override_all(changes)
    return make_scheduler(experiment, default_space(experiment, images=1000))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("asha", AsyncHyperBandScheduler),
        ("hyperband", AsyncHyperBandScheduler),
        ("median", MedianStoppingRule),
        ("pbt", PopulationBasedTraining),
        ("none", FIFOScheduler),
    ],
)
def test_each_name_is_a_scheduler_of_ray(name, kind):
    assert isinstance(scheduler_of(scheduler=name), kind)


def test_hyperband_is_asha_with_brackets():
    assert len(scheduler_of(scheduler="asha")._brackets) == 1
    assert len(scheduler_of(scheduler="hyperband")._brackets) == 3


def test_trials_no_longer_than_the_grace_are_not_stopped():
    assert type(scheduler_of(grace=9)) is FIFOScheduler


def test_grace_is_a_share_of_the_epochs():
    assert [choose_grace(Experiment().override("train.epochs", epochs)) for epochs in (4, 16, 20, 160)] == [1, 2, 3, 18]
    assert [choose_grace(Experiment().override("train.epochs", 79), steps) for steps in (5, 50)] == [27, 9]
    assert rung_epochs(2, 20) == (2, 6, 18)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"scheduler": "median", "objective": ("accuracy", "latency")}, "one objective"),
        ({"scheduler": "pbt", "trials": 3}, "4 or more"),
        ({"scheduler": "pbt", "algorithm": "grid"}, "no grid"),
    ],
)
def test_unsupported_searches_are_refused(search, message):
    with pytest.raises(ConfigError, match=message):
        scheduler_of(**search)


def test_trials_on_the_front_continue_and_dominated_ones_stop():
    pareto_scheduler = ParetoScheduler(("accuracy", "latency"), rungs=(2, 6))

    def report(name, epoch, accuracy, latency):
        result = {"epoch": epoch, "accuracy": accuracy, "latency": latency}
        return pareto_scheduler.on_trial_result(None, SimpleNamespace(trial_id=name, config={}), result)

    assert report("a", 1, 0.1, 9.0) == "CONTINUE"  # not a rung
    assert report("a", 2, 0.9, 5.0) == "CONTINUE"  # the first at this rung
    assert report("b", 2, 0.5, 1.0) == "CONTINUE"  # worse, but faster
    assert report("c", 2, 0.4, 6.0) == "STOP"  # worse than both
    assert report("d", 2, 0.95, 9.0) == "CONTINUE"  # the best so far
    assert report("a", 2, 0.9, 5.0) == "CONTINUE"  # reported again after a crash
    assert report("e", 6, 0.1, 99.0) == "CONTINUE"  # a rung of its own


@pytest.mark.parametrize("search", [{"scheduler": "asha"}, {"objective": ("accuracy", "loss")}])
def test_a_replayed_epoch_stops_no_trial(search):
    """A resumed search hears of old epochs in another order: what had passed a rung must not be stopped at it."""
    scheduler, decisions = scheduler_of(grace=3, **search), {}
    for number in range(9):
        trial = SimpleNamespace(trial_id=f"t{number}", config={})
        if hasattr(scheduler, "_trial_info"):
            scheduler.on_trial_add(None, trial)
        report = {"epoch": 3, "accuracy": 0.9 - 0.1 * number, "loss": 0.1 * number, "training_iteration": 3}
        decisions[number] = scheduler.on_trial_result(None, trial, report | {"replayed": number == 7})
    assert decisions[8] == "STOP"
    assert decisions[7] == "CONTINUE"


@pytest.mark.parametrize("search", [{"scheduler": "asha"}, {"objective": ("accuracy", "loss")}])
def test_a_trial_of_other_epochs_neither_stops_at_a_rung_nor_counts_there(search):
    scheduler = scheduler_of(grace=1, **search)

    def report(name, accuracy, **config):
        trial = SimpleNamespace(trial_id=name, config=config)
        if hasattr(scheduler, "_trial_info"):
            scheduler.on_trial_add(None, trial)
        result = {"epoch": 1, "accuracy": accuracy, "loss": 1 - accuracy, "training_iteration": 1}
        decision = scheduler.on_trial_result(None, trial, result)
        scheduler.on_trial_complete(None, trial, result)
        return decision

    probes = {f"p{number}": 0.99 for number in range(4)}
    assert {report(name, accuracy, **{"train.epochs": 1}) for name, accuracy in probes.items()} == {"CONTINUE"}
    assert report("a", 0.2) == "CONTINUE"  # the first that counts
    assert report("b", 0.1, **{"train.epochs": 1}) == "CONTINUE"
