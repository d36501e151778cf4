"""Temperature, sets and thresholds: learned from some images, true of others."""

import math

import pytest
import torch
from torch import Tensor

from classifier.errors import ConfigError, DataError
from classifier.metrics.calibration import (
    Calibration,
    calibrate,
    coverage_curve,
    fit_set_threshold,
    reliability_bins,
    fit_temperature,
    apply_temperature,
    fit_thresholds,
)
from classifier.metrics.scores import compute_scores


def drawn(count: int, *, seed: int, heat: float = 1.0, classes: int = 5) -> tuple[Tensor, Tensor]:
    """log_probabilities_NK whose logits are `heat` times too large, and labels drawn from the true probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits_NK = 2 * torch.randn(count, classes, generator=generator)
    labels_N = torch.multinomial(logits_NK.softmax(1), 1, generator=generator)[:, 0]
    return (heat * logits_NK).log_softmax(1), labels_N


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_the_temperature_is_what_the_logits_are_too_large_by(heat):
    found = fit_temperature(*drawn(8000, seed=0, heat=heat))
    assert found == pytest.approx(heat, rel=0.06)


def test_an_overconfident_models_calibration_error_is_halved_at_least_on_other_images():
    found = calibrate(*(drawn(3000, seed=0, heat=3.0)[0].exp(), drawn(3000, seed=0, heat=3.0)[1]))
    log_probabilities_NK, labels_N = drawn(10_000, seed=1, heat=3.0)
    before = compute_scores(log_probabilities_NK.exp(), labels_N)
    after = compute_scores(apply_temperature(log_probabilities_NK, found.temperature).exp(), labels_N)
    assert before["ece"] > 0.1
    assert after["ece"] < before["ece"] / 2
    assert after["accuracy"] == before["accuracy"]


def test_few_images_teach_no_temperature():
    assert fit_temperature(*drawn(20, seed=0, heat=3.0)) == 1.0


def test_a_model_without_mistakes_is_not_made_surer_than_its_images_can_tell():
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 5, (160,), generator=generator)
    logits_NK = 4 * torch.nn.functional.one_hot(labels_N, 5) + torch.rand(160, 5, generator=generator)
    found = calibrate(logits_NK.softmax(1), labels_N)
    confidence = apply_temperature(logits_NK.log_softmax(1), found.temperature).exp().amax(1).mean()
    assert 0.98 < confidence < 0.999


def test_probabilities_that_no_float_can_hold_are_survived():
    probabilities_NK = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(60, 1)
    labels_N = torch.tensor([0, 0]).repeat(60)
    assert math.isfinite(calibrate(probabilities_NK, labels_N).temperature)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.99])
def test_sets_hold_the_label_as_often_as_they_say(coverage):
    held = []
    for seed in range(40):
        log_probabilities_NK, labels_N = drawn(1000, seed=2 * seed)
        level = fit_set_threshold(log_probabilities_NK.exp(), labels_N, coverage)
        sets = Calibration(images=1000, coverage=coverage, level=level)
        new_NK, new_N = drawn(1000, seed=2 * seed + 1)
        held.append(float(sets.prediction_sets(new_NK.exp()).gather(1, new_N[:, None]).double().mean()))
    assert sum(held) / len(held) == pytest.approx(coverage, abs=0.006)


def test_sets_hold_more_than_the_likeliest_class_does_where_nothing_is_asked_for():
    log_probabilities_NK, labels_N = drawn(4000, seed=0)
    good = calibrate((2 * log_probabilities_NK).log_softmax(1).exp(), log_probabilities_NK.argmax(1))
    assert good.coverage == 4000 / 4001  # it makes no mistake
    assert good.level > 0
    plain = calibrate(log_probabilities_NK.exp(), labels_N)
    assert plain.coverage == 0.9


def test_too_few_images_give_sets_of_all_classes():
    probabilities_NK = torch.full((5, 4), 0.25)
    level = fit_set_threshold(probabilities_NK, torch.zeros(5, dtype=torch.int64), 0.9)
    assert Calibration(images=5, level=level).prediction_sets(probabilities_NK).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(ConfigError, match=f"--coverage {coverage:g}"):
        fit_set_threshold(torch.full((5, 4), 0.25), torch.zeros(5, dtype=torch.int64), coverage)


def test_thresholds_keep_the_wished_precision_with_the_most_images_they_can():
    log_probabilities_NK, labels_N = drawn(5000, seed=0)
    probabilities_NK = log_probabilities_NK.exp()
    for k, least in enumerate(fit_thresholds(probabilities_NK, labels_N, precision=0.9)):
        assert least is not None
        taken_N = probabilities_NK[:, k] >= least
        assert (labels_N[taken_N] == k).double().mean() >= 0.9
        lower = probabilities_NK[:, k][~taken_N].unique()
        for other in lower:  # every lower threshold takes in too many others
            assert (labels_N[probabilities_NK[:, k] >= other] == k).double().mean() < 0.9


def test_thresholds_keep_the_wished_recall_and_are_the_highest_that_do():
    log_probabilities_NK, labels_N = drawn(2000, seed=0)
    probabilities_NK = log_probabilities_NK.exp()
    for k, least in enumerate(fit_thresholds(probabilities_NK, labels_N, recall=0.8)):
        assert least is not None
        mine_N = probabilities_NK[labels_N == k, k]
        assert (mine_N >= least).double().mean() >= 0.8
        assert (mine_N > least).double().mean() < 0.8


def test_a_wish_that_no_threshold_fulfils_has_none_and_such_a_class_is_never_taken():
    probabilities_NK = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    labels_N = torch.tensor([1, 1, 1])
    found = fit_thresholds(probabilities_NK, labels_N, precision=0.5)
    assert found[0] is None
    assert found[1] == pytest.approx(0.1)
    assert Calibration(images=3, thresholds=found).decide(probabilities_NK).tolist() == [1, 1, 1]
    assert Calibration(images=3, thresholds=(None, 0.5)).decide(probabilities_NK).tolist() == [-1, -1, 1]


@pytest.mark.parametrize("wish", [{}, {"precision": 0.9, "recall": 0.9}, {"precision": 0.0}, {"recall": 1.2}])
def test_a_wish_that_is_none_is_refused(wish):
    with pytest.raises(ConfigError, match="--precision or --recall"):
        fit_thresholds(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]), **wish)


def test_without_thresholds_a_model_is_sure_where_its_set_has_one_class():
    known = Calibration(images=100, level=0.3)
    probabilities_NK = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert known.decide(probabilities_NK).tolist() == [0, -1, 1]
    assert Calibration(images=100, level=0.95).decide(probabilities_NK).tolist() == [0, 0, 1]


def test_the_curve_of_coverage_ends_at_the_accuracy():
    probabilities_NK = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.2, 0.8]])
    labels_N = torch.tensor([0, 0, 0, 1])
    coverage_N, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    assert coverage_N.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert accuracy_N.tolist() == [1.0, 1.0, 1.0, 0.75]


def test_the_bins_of_reliability_hold_every_image_once():
    log_probabilities_NK, labels_N = drawn(500, seed=0)
    bins = reliability_bins(log_probabilities_NK.exp(), labels_N)
    assert sum(count for _, _, count in bins) == 500
    assert all(0 <= accuracy <= 1 and 0 < confidence <= 1 for confidence, accuracy, _ in bins)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(DataError, match="no validation images"):
        calibrate(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


def test_the_way_to_json_and_back():
    known = Calibration(images=9, temperature=1.5, thresholds=(0.5, None), wish="precision 0.9")
    assert Calibration.from_dict(known.as_dict() | {"thresholds": [0.5, None]}) == known
