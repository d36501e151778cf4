"""Schedulers by their settings, and the one of this project's own: early stopping by several objectives."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, PopulationBasedTraining

from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.search.space import default_space
from jobs.search.schedulers import FrontScheduler, grace_of, rungs, scheduler


def made(**search) -> Any:
    changes = {"train.epochs": 9} | {f"search.{name}": value for name, value in search.items()}
    experiment = Experiment().override_all(changes)
    return scheduler(experiment, default_space(experiment, images=1000))


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
def test_each_name_is_one_of_rays_schedulers(name, kind):
    assert type(made(scheduler=name)) is kind


def test_brackets_tell_hyperband_from_asha():
    assert len(made(scheduler="asha")._brackets) == 1
    assert len(made(scheduler="hyperband")._brackets) == 3


def test_trials_as_short_as_the_grace_are_never_stopped():
    assert type(made(grace=9)) is FIFOScheduler


def test_the_grace_follows_the_epochs():
    assert [grace_of(Experiment().override("train.epochs", epochs)) for epochs in (4, 16, 20, 160)] == [1, 2, 3, 18]
    assert [grace_of(Experiment().override("train.epochs", 79), steps) for steps in (5, 50)] == [27, 9]
    assert rungs(2, 20) == (2, 6, 18)


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"scheduler": "median", "objective": ("accuracy", "latency")}, "one objective"),
        ({"scheduler": "pbt", "trials": 3}, "4 or more"),
        ({"scheduler": "pbt", "algorithm": "grid"}, "no grid"),
    ],
)
def test_what_a_scheduler_cannot_do_is_refused(search, says):
    with pytest.raises(ConfigError, match=says):
        made(**search)


def test_the_front_goes_on_and_the_dominated_stop():
    front = FrontScheduler(("accuracy", "latency"), rungs=(2, 6))

    def told(name, epoch, accuracy, latency):
        result = {"epoch": epoch, "accuracy": accuracy, "latency": latency}
        return front.on_trial_result(None, SimpleNamespace(trial_id=name), result)

    assert told("a", 1, 0.1, 9.0) == "CONTINUE"  # no rung
    assert told("a", 2, 0.9, 5.0) == "CONTINUE"  # the first to come
    assert told("b", 2, 0.5, 1.0) == "CONTINUE"  # worse, but quicker
    assert told("c", 2, 0.4, 6.0) == "STOP"  # worse than both
    assert told("d", 2, 0.95, 9.0) == "CONTINUE"  # the best so far
    assert told("a", 2, 0.9, 5.0) == "CONTINUE"  # told again after a death
    assert told("e", 6, 0.1, 99.0) == "CONTINUE"  # a rung of its own
