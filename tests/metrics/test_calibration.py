"""Temperatures, prediction sets and thresholds: fitted to some images, they hold for others."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from classifier.errors import ConfigError, DataError
from classifier.metrics.calibration import (
    apply_temperature,
    calibrate,
    coverage_curve,
    fit_set_threshold,
    fit_temperature,
    fit_thresholds,
    reliability_bins,
)
from classifier.metrics.decisions import Calibration
from classifier.metrics.hierarchy import Hierarchy
from classifier.metrics.scores import compute_scores


def sample(count: int, *, seed: int, scale: float = 1.0, classes: int = 5) -> tuple[Tensor, Tensor]:
    """log_probabilities_NK whose logits are `scale` times too large, and labels sampled from the true probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits_NK = 2 * torch.randn(count, classes, generator=generator)
    labels_N = torch.multinomial(logits_NK.softmax(1), 1, generator=generator)[:, 0]
    return (scale * logits_NK).log_softmax(1), labels_N


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_temperature_is_the_scale_of_the_logits(scale):
    fitted = fit_temperature(*sample(8000, seed=0, scale=scale))
    assert fitted == pytest.approx(scale, rel=0.06)


def test_calibration_error_of_an_overconfident_model_at_least_halves_on_other_images():
    fitted = calibrate(*(sample(3000, seed=0, scale=3.0)[0].exp(), sample(3000, seed=0, scale=3.0)[1]))
    log_probabilities_NK, labels_N = sample(10_000, seed=1, scale=3.0)
    before = compute_scores(log_probabilities_NK.exp(), labels_N)
    after = compute_scores(apply_temperature(log_probabilities_NK, fitted.temperature).exp(), labels_N)
    assert before["ece"] > 0.1
    assert after["ece"] < before["ece"] / 2
    assert after["accuracy"] == before["accuracy"]


def test_too_few_images_leave_the_temperature_at_1():
    assert fit_temperature(*sample(20, seed=0, scale=3.0)) == 1.0


def test_model_without_errors_does_not_become_overconfident():
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 5, (160,), generator=generator)
    logits_NK = 4 * torch.nn.functional.one_hot(labels_N, 5) + torch.rand(160, 5, generator=generator)
    fitted = calibrate(logits_NK.softmax(1), labels_N)
    confidence = apply_temperature(logits_NK.log_softmax(1), fitted.temperature).exp().amax(1).mean()
    assert 0.98 < confidence < 0.999


def test_probabilities_of_zero_give_a_finite_temperature():
    probabilities_NK = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(60, 1)
    labels_N = torch.tensor([0, 0]).repeat(60)
    assert math.isfinite(calibrate(probabilities_NK, labels_N).temperature)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.99])
def test_prediction_sets_have_their_coverage(coverage):
    coverages = []
    for seed in range(40):
        log_probabilities_NK, labels_N = sample(1000, seed=2 * seed)
        threshold = fit_set_threshold(log_probabilities_NK.exp(), labels_N, coverage)
        sets = Calibration(images=1000, coverage=coverage, set_threshold=threshold)
        new_NK, new_N = sample(1000, seed=2 * seed + 1)
        coverages.append(float(sets.prediction_sets(new_NK.exp())[range(1000), new_N].mean()))
    assert sum(coverages) / len(coverages) == pytest.approx(coverage, abs=0.006)


def test_default_coverage_is_above_the_accuracy():
    log_probabilities_NK, labels_N = sample(4000, seed=0)
    good = calibrate((2 * log_probabilities_NK).log_softmax(1).exp(), log_probabilities_NK.argmax(1))
    assert good.coverage == 4000 / 4001  # it makes no errors
    assert good.set_threshold > 0
    plain = calibrate(log_probabilities_NK.exp(), labels_N)
    assert plain.coverage == 0.9


def test_too_few_images_give_sets_of_all_classes():
    probabilities_NK = torch.full((5, 4), 0.25)
    threshold = fit_set_threshold(probabilities_NK, torch.zeros(5, dtype=torch.int64), 0.9)
    assert Calibration(images=5, set_threshold=threshold).prediction_sets(probabilities_NK).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5])
def test_coverage_outside_0_to_1_raises(coverage):
    with pytest.raises(ConfigError, match=f"--coverage {coverage:g}"):
        fit_set_threshold(torch.full((5, 4), 0.25), torch.zeros(5, dtype=torch.int64), coverage)


def test_thresholds_are_the_lowest_with_the_target_precision():
    log_probabilities_NK, labels_N = sample(5000, seed=0)
    probabilities_NK = log_probabilities_NK.exp()
    for k, threshold in enumerate(fit_thresholds(probabilities_NK, labels_N, precision=0.9)):
        assert threshold is not None
        above_N = probabilities_NK[:, k] >= threshold
        assert (labels_N[above_N] == k).double().mean() >= 0.9
        lower = probabilities_NK[:, k][~above_N].unique()
        for other in lower:  # every lower threshold has too many false positives
            assert (labels_N[probabilities_NK[:, k] >= other] == k).double().mean() < 0.9


def test_thresholds_are_the_highest_with_the_target_recall():
    log_probabilities_NK, labels_N = sample(2000, seed=0)
    probabilities_NK = log_probabilities_NK.exp()
    for k, threshold in enumerate(fit_thresholds(probabilities_NK, labels_N, recall=0.8)):
        assert threshold is not None
        of_class_N = probabilities_NK[labels_N == k, k]
        assert (of_class_N >= threshold).double().mean() >= 0.8
        assert (of_class_N > threshold).double().mean() < 0.8


def test_class_that_cannot_reach_the_target_has_no_threshold_and_is_never_decided_for():
    probabilities_NK = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    labels_N = torch.tensor([1, 1, 1])
    fitted = fit_thresholds(probabilities_NK, labels_N, precision=0.5)
    assert fitted[0] is None
    assert fitted[1] == pytest.approx(0.1)
    assert Calibration(images=3, thresholds=fitted).decide(probabilities_NK).tolist() == [1, 1, 1]
    assert Calibration(images=3, thresholds=(None, 0.5)).decide(probabilities_NK).tolist() == [-1, -1, 1]


@pytest.mark.parametrize("target", [{}, {"precision": 0.9, "recall": 0.9}, {"precision": 0.0}, {"recall": 1.2}])
def test_invalid_targets_raise(target):
    with pytest.raises(ConfigError, match="--precision and --recall"):
        fit_thresholds(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), **target)


def test_without_thresholds_sets_of_one_class_decide():
    calibration = Calibration(images=100, set_threshold=0.3)
    probabilities_NK = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert calibration.decide(probabilities_NK).tolist() == [0, -1, 1]
    assert Calibration(images=100, set_threshold=0.95).decide(probabilities_NK).tolist() == [0, 0, 1]


def test_coverage_curve_ends_at_the_accuracy():
    probabilities_NK = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.2, 0.8]])
    labels_N = torch.tensor([0, 0, 0, 1])
    coverage_N, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    assert coverage_N.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert accuracy_N.tolist() == [1.0, 1.0, 1.0, 0.75]


def test_reliability_bins_count_each_image_once():
    log_probabilities_NK, labels_N = sample(500, seed=0)
    bins = reliability_bins(log_probabilities_NK.exp(), labels_N)
    assert sum(count for _, _, count in bins) == 500
    assert all(0 <= accuracy <= 1 and 0 < confidence <= 1 for confidence, accuracy, _ in bins)


def test_calibrating_without_images_raises():
    with pytest.raises(DataError, match="no validation images"):
        calibrate(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


def test_json_round_trip():
    calibration = Calibration(images=9, temperature=1.5, thresholds=(0.5, None), target="precision 0.9")
    assert [*calibration.as_dict()] == ["images", "temperature", "coverage", "level", "wish", "thresholds"]
    assert Calibration.from_dict(calibration.as_dict() | {"thresholds": [0.5, None]}) == calibration


def test_a_class_above_the_leaves_where_no_leaf_is_sure() -> None:
    names = ("animal/cat", "animal/dog", "plant/fern")
    probabilities_NK = np.array([[0.5, 0.45, 0.05], [0.95, 0.03, 0.02], [0.3, 0.3, 0.4]], np.float32)
    hierarchy, plain = Hierarchy(names), Calibration(images=100, set_threshold=0.2)
    nested = Calibration(images=100, set_threshold=0.2, ancestor_threshold=0.9)
    assert plain.decide(probabilities_NK, hierarchy).tolist() == [-1, 0, -1]
    assert [hierarchy.names[n] for n in nested.decide(probabilities_NK, hierarchy)[:2]] == ["animal", "animal/cat"]
    assert nested.decide(probabilities_NK, hierarchy)[2] == -1
    assert Calibration.from_dict(nested.as_dict()) == nested
    assert "ancestor_threshold" not in plain.as_dict()  # as earlier versions wrote it


def test_calibration_of_nested_classes_keeps_its_promise() -> None:
    rng, hierarchy = np.random.default_rng(0), Hierarchy(("a/1", "a/2", "a/3", "b/1", "b/2"))
    logits_NK = torch.from_numpy(rng.normal(0, 1.5, (2400, 5)))
    labels_N = torch.multinomial(logits_NK.softmax(1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    probabilities_NK = (2 * logits_NK).softmax(1)  # too sure
    fitted = calibrate(probabilities_NK[:400], labels_N[:400], hierarchy=hierarchy)
    calibrated_NK = apply_temperature(probabilities_NK[400:].log(), fitted.temperature).exp()
    nodes_N = fitted.decide(calibrated_NK, hierarchy)
    holds_VK = np.concatenate([np.eye(5, dtype=bool), hierarchy.in_AK])
    above_N = nodes_N >= 5
    wrong_N = ~holds_VK[nodes_N[above_N], labels_N[400:].numpy()[above_N]]
    assert above_N.mean() > 0.3
    assert wrong_N.sum() / len(nodes_N) < 1 - fitted.coverage + 0.02
