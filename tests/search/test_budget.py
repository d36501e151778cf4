"""The cost model of a search: trials, predictions, and what follows the trials."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from classifier.config.experiment import Experiment
from classifier.profiling.step_time import StepTime
from classifier.search import budget
from classifier.search.budget import ConclusionEstimate

TRAIN, VALIDATION, TEST = 1000, 200, 300
ESTIMATE = ConclusionEstimate(
    epoch_seconds=2.0,
    prediction_epochs=3.0,
    refit_epoch_factor=1.5,
    refit_epochs=10,
    max_refit_seconds=60.0,
    refit_start_seconds=5.0,
    backbone_seconds=4.0,
    share_before_refit=0.25,
)
FIXED = budget.STOP_TRIALS_SECONDS + budget.SAVE_SECONDS
FROZEN = {"model.freeze": "backbone", "augment.views": 2, "model.freeze_epochs": None}


class Sizes:
    """A dataset of which only the sizes of the splits matter."""

    train, validation, test = torch.zeros(TRAIN), torch.zeros(VALIDATION), torch.zeros(TEST)
    unlabelled: Any = None


DATASET: Any = Sizes()


def experiment(**changes: Any) -> Experiment:
    settings = {"data.batch": 100, "train.epochs": 10, "search.minutes": 2.0, "search.final": True}
    return Experiment().override_all(settings | changes)


def test_total_is_fixed_costs_predictions_and_refit():
    assert ESTIMATE.total_seconds() == FIXED + 3 * 2 + 4 + 5 + 1.5 * 10 * 2


def test_total_follows_the_measured_epoch_and_the_refit_epochs():
    assert ESTIMATE.total_seconds(1.0) == FIXED + 3 + 4 + 5 + 1.5 * 10
    assert ESTIMATE.total_seconds(1.0, epochs=20) == FIXED + 3 + 4 + 5 + 1.5 * 20


def test_refit_is_limited_to_its_maximum():
    assert ESTIMATE.total_seconds(8.0) == FIXED + 3 * 8 + 4 + 5 + 60


def test_total_without_a_refit():
    without = dataclasses.replace(ESTIMATE, refit_epoch_factor=0.0)
    assert without.total_seconds() == without.seconds_without_refit(2.0) == FIXED + 3 * 2 + 4


def test_when_the_refit_starts_the_trials_are_stopped_and_the_early_predictions_are_made():
    assert ESTIMATE.seconds_without_refit(2.0, from_refit=True) == budget.SAVE_SECONDS + 0.75 * (3 * 2 + 4)


@pytest.mark.parametrize(
    ("changes", "with_test_flip", "cost"),
    [
        ({}, True, 50),
        ({"augment.test_flip": True}, True, 100),
        ({"augment.test_flip": True}, False, 50),
        (FROZEN, True, 100),
    ],
)
def test_prediction_cost_in_training_images(changes, with_test_flip, cost):
    assert budget.prediction_cost(experiment(**changes), 100, with_test_flip=with_test_flip) == cost


def test_optimizer_steps_follow_batch_and_accumulation():
    assert budget.optimizer_steps_per_epoch(experiment(), DATASET) == 10
    assert budget.optimizer_steps_per_epoch(experiment(), DATASET, 2000) == 20
    assert budget.optimizer_steps_per_epoch(experiment(**{"optimizer.accumulate": 2}), DATASET) == 5


def test_an_epoch_with_unlabelled_images_passes_the_labels_several_times():
    few: Any = Sizes()
    few.unlabelled = torch.zeros(21 * TRAIN)
    assert budget.optimizer_steps_per_epoch(experiment(), few) == 30
    seconds, with_labels = (budget.trial_seconds(experiment(), one, StepTime(0.1)) for one in (few, DATASET))
    assert seconds > 2.5 * with_labels


def test_trial_is_its_steps_with_validation_and_checkpoints():
    overhead = budget.CHECKPOINT_FACTOR * (1 + 0.5 * VALIDATION / TRAIN)
    assert budget.epoch_overhead(experiment(), DATASET) == pytest.approx(overhead)
    assert budget.trial_seconds(experiment(), DATASET, StepTime(0.1)) == pytest.approx(10 * 10 * 0.1 * overhead)


def test_trial_with_cached_features_pays_once_for_the_backbone():
    frozen = experiment(**FROZEN)
    assert budget.epoch_overhead(frozen, DATASET) == budget.CHECKPOINT_FACTOR
    seconds = budget.trial_seconds(frozen, DATASET, StepTime(0.1, 0.01))
    images = 2 * TRAIN + VALIDATION
    assert seconds == pytest.approx(10 * 10 * 0.1 * budget.CHECKPOINT_FACTOR + images * 0.01)


def test_estimate_for_a_trained_network():
    estimate = budget.estimate_conclusion(experiment(), DATASET, StepTime(0.1))
    assert estimate.epoch_seconds == pytest.approx(1.0)
    assert estimate.refit_epoch_factor == pytest.approx(budget.CHECKPOINT_FACTOR * 1.2)
    assert estimate.refit_epochs == 10
    assert estimate.max_refit_seconds == budget.MAX_REFIT_SHARE * 120
    assert estimate.backbone_seconds == 0
    assert 0 < estimate.share_before_refit < 1
    images_predicted = estimate.prediction_epochs * TRAIN / 0.5
    assert images_predicted > 2 * (TRAIN + VALIDATION) + TEST  # OOD detector, neighbours, calibration and test


def test_estimate_for_a_frozen_backbone_does_not_scale_with_the_epoch():
    estimate = budget.estimate_conclusion(experiment(**FROZEN), DATASET, StepTime(0.1, 0.01))
    assert estimate.prediction_epochs == 0
    assert estimate.backbone_seconds > budget.BACKBONE_FACTOR * (TRAIN + VALIDATION + TEST) * 0.01


def test_remote_refit_starts_workers_and_computes_all_features():
    frozen, step_time = experiment(**FROZEN), StepTime(0.1, 0.01)
    local, remote = (
        budget.estimate_conclusion(frozen, DATASET, step_time, is_local=is_local).refit_start_seconds
        for is_local in (True, False)
    )
    assert local == pytest.approx(budget.LOCAL_REFIT_START_SECONDS + budget.BACKBONE_FACTOR * 2 * VALIDATION * 0.01)
    images = TRAIN + VALIDATION
    assert remote == pytest.approx(budget.REMOTE_REFIT_START_SECONDS + budget.BACKBONE_FACTOR * 2 * images * 0.01)


def test_without_minutes_the_refit_is_unlimited():
    estimate = budget.estimate_conclusion(experiment(**{"search.minutes": None}), DATASET, StepTime(0.1))
    assert math.isinf(estimate.max_refit_seconds)


def test_without_search_final_there_is_no_refit():
    estimate = budget.estimate_conclusion(experiment(**{"search.final": False}), DATASET, StepTime(0.1))
    assert estimate.refit_epoch_factor == 0
    assert estimate.total_seconds() == estimate.seconds_without_refit(estimate.epoch_seconds)
