"""How a search spends its minutes: decisions from measured times, without a cluster."""

from typing import Any

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.profiling.step_time import StepTime
from classifier.search import budget
from jobs.search.trial_budget import (
    choose_final,
    choose_search_share,
    count_trials,
    find_too_slow,
    fit_single_trial,
    fit_trials,
    split_cores,
    warn_of_few_images,
)

STEP = StepTime(0.01)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load(Experiment().data)


def search(minutes: float, **changes: Any) -> Experiment:
    """Trials of 100 epochs of 0.38 s each, without their validation."""
    settings = {"train.epochs": 100, "search.minutes": minutes, "search.final": True, "data.batch": 32}
    return Experiment().override_all(settings | changes)


def fit(digits: Dataset, minutes: float, **changes: Any) -> tuple[Experiment, list[str]]:
    return fit_trials(search(minutes, **changes), digits, STEP, resources={"CPU": 2.0}, node_cores=2)


def test_before_a_refit_trials_are_shorter(digits):
    experiment, notes = fit(digits, 2.0)
    assert experiment.search.final_epochs == 100
    assert 25 <= experiment.train.epochs <= 50
    assert "the refit has 100 epochs" in notes[0]
    conclusion_seconds = budget.estimate_conclusion(experiment, digits, STEP).total_seconds()
    assert 4 * budget.trial_seconds(experiment, digits, STEP) <= 120 - conclusion_seconds + 1


@pytest.mark.parametrize(
    ("minutes", "spent", "changes", "epochs"),
    [
        (1.5, 20.0, {}, 100),  # one training and a half do not fit beside the start and the test
        (1.0, 20.0, {}, None),  # nor all epochs of one
        (1.0, 59.0, {}, 1),  # nothing fits, but an epoch is the least
        (1.5, 20.0, {"search.trials": 1}, 100),
        (4.0, 20.0, {}, 0),
        (1.0, 20.0, {"search.final": True}, 0),
        (1.0, 20.0, {"search.scheduler": "pbt"}, 0),
        (1.0, 20.0, {"search.algorithm": "grid"}, 0),
    ],
)
def test_minutes_that_hold_one_training_are_spent_on_it(digits, minutes, spent, changes, epochs):
    """epochs: of the training; 0 for a search, None for fewer than all."""
    asked = search(minutes, **{"search.final": None} | changes)
    single = fit_single_trial(asked, digits, STEP, spent_seconds=spent, node_cores=2)
    if epochs == 0:
        assert single is None
        return
    assert single is not None
    experiment, notes = single
    settings = experiment.search.trials, experiment.search.final, experiment.workers.cpus
    assert settings == (1, False, 2.0)
    assert experiment.train.epochs == (epochs or pytest.approx(50, abs=40))
    assert any("hold one training only" in note for note in notes) == (asked.search.trials > 1)
    assert any("is cut to" in note for note in notes) == (experiment.train.epochs < 100)
    if 1 < experiment.train.epochs < 100:
        seconds = budget.trial_seconds(experiment, digits, STEP)
        assert 0.8 * (60 * minutes - spent - 16) < seconds < 60 * minutes - spent - 8


def test_the_only_training_that_the_minutes_hold_is_a_linear_probe_if_there_is_one(digits):
    asked, probe = search(1.0, **{"search.final": None}), {"model.probe": True, "train.epochs": 1}
    single = fit_single_trial(asked, digits, STEP, spent_seconds=20.0, node_cores=2, probe=probe)
    assert single is not None
    experiment, notes = single
    assert (experiment.train.epochs, experiment.model.probe, experiment.search.trials) == (1, True, 1)
    assert experiment.search.final == (len(digits.validation) > (len(digits.train) + len(digits.validation)) / 7)
    assert "which is a linear probe" in notes[-1]


def test_announced_trials_are_those_that_fit(digits):
    whole = budget.trial_seconds(search(9.0), digits, STEP)
    assert [count_trials(search(9.0), digits, STEP, n * whole) for n in (-1, 0.5, 1.5, 4.01)] == [1, 1, 1, 4]


def test_minutes_that_hold_many_trials_leave_them_as_they_are(digits):
    experiment, notes = fit(digits, 20.0)
    assert (experiment.train.epochs, experiment.search.final_epochs, notes) == (100, None, [])


def test_epochs_set_by_the_user_are_cut_only_if_no_trial_would_end(digits):
    experiment, _ = fit(digits, 2.0, **{"search.epochs": 100})
    assert (experiment.train.epochs, experiment.search.final_epochs) == (100, None)
    experiment, notes = fit(digits, 1.0, **{"search.epochs": 100})
    assert experiment.train.epochs < 100
    assert "would take" in notes[0]


@pytest.mark.parametrize(
    ("minutes", "changes", "resources", "cpus", "at_once"),
    [
        (1.0, {}, {"CPU": 8.0}, 8.0, 1),  # one trial after the other, on all cores
        (60.0, {}, {"CPU": 8.0}, 1.0, 8),
        (60.0, {}, {"CPU": 8.0, "GPU": 1.0}, None, 1),
        (60.0, {"workers.cpus": 4.0}, {"CPU": 8.0}, 4.0, 1),
        (60.0, {"workers.count": 2}, {"CPU": 8.0}, None, 1),
    ],
)
def test_few_minutes_give_each_trial_more_cores(digits, minutes, changes, resources, cpus, at_once):
    experiment, found = split_cores(search(minutes, **changes), digits, STEP, resources=resources, node_cores=8)
    assert (experiment.workers.cpus, found) == (cpus, at_once)


def test_a_trial_has_no_more_cores_than_a_node(digits):
    experiment, _ = split_cores(search(1.0), digits, STEP, resources={"CPU": 8.0}, node_cores=4)
    assert experiment.workers.cpus == 4.0


@pytest.mark.parametrize(
    ("minutes", "changes", "share"),
    [
        (20.0, {}, 0.5),
        (1.0, {}, 1.0),  # too few for several trials
        (20.0, {"search.longer": False}, 1.0),
        (20.0, {"search.scheduler": "pbt"}, 1.0),
        (20.0, {"search.algorithm": "grid"}, 1.0),
        (20.0, {"search.objective": ("accuracy", "epochs")}, 1.0),
        (20.0, {"search.final_epochs": 200}, 1.0),  # the refit is the longer training
    ],
)
def test_half_of_the_minutes_are_for_trials_if_a_longer_training_follows(digits, minutes, changes, share):
    assert choose_search_share(search(minutes, **changes), digits, STEP) == share


def test_an_architecture_whose_trial_takes_most_of_the_time_is_left_out():
    too_slow = find_too_slow({"small": 49.0, "large": 120.0}, 100.0)
    assert too_slow == {"large": "one trial would take about 2.0 minutes, all trials have 1.7"}


@pytest.mark.parametrize(
    ("changes", "validation_images", "final", "notes"),
    [
        ({}, 100, False, 0),
        ({}, 330, True, 1),
        ({"search.scheduler": "pbt"}, 330, False, 0),
        ({"workers.count": 2}, 330, False, 0),
        ({"search.final": True}, 100, True, 0),  # the user decided
        ({"search.final": False}, 330, False, 0),
    ],
)
def test_a_winner_is_refit_if_validation_holds_back_many_images(changes, validation_images, final, notes):
    experiment, found = choose_final(Experiment().override_all(changes), 1000 - validation_images, validation_images)
    assert (experiment.search.final, len(found)) == (final, notes)


def test_few_validation_images_are_noted():
    assert warn_of_few_images(100, final=False) == []
    (note,) = warn_of_few_images(25, final=False)
    assert "up to 10 points" in note
    assert "--search.final true" in note
    assert "--search.final" not in warn_of_few_images(25, final=True)[0]
