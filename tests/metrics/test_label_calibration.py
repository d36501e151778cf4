"""Temperature, thresholds and prediction sets of several labels: fitted to some images, they hold for others."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from classifier.errors import ConfigError, DataError
from classifier.metrics.decisions import Calibration
from classifier.metrics.label_calibration import (
    MIN_LABEL_IMAGES,
    apply_label_temperature,
    calibrate_labels,
    fit_f1_thresholds,
    fit_label_set_threshold,
    fit_label_temperature,
)


def sample(count: int, seed: int, *, scale: float = 1.0, classes: int = 6) -> tuple[Tensor, Tensor]:
    """Probabilities that are calibrated for a scale of 1, overconfident above it; a fifth of images has no label."""
    generator = torch.Generator().manual_seed(seed)
    logits_NK = 2 * torch.randn(count, classes, generator=generator) - 1.5
    targets_NK = torch.rand(count, classes, generator=generator) < logits_NK.sigmoid()
    return (scale * logits_NK).sigmoid(), targets_NK


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_is_that_of_the_logits(scale: float):
    probabilities_NK, targets_NK = sample(4000, 0, scale=scale)
    assert fit_label_temperature(probabilities_NK.log(), targets_NK) == pytest.approx(scale, rel=0.1)
    restored_NK = apply_label_temperature(probabilities_NK.log(), scale).exp()
    torch.testing.assert_close(restored_NK, sample(4000, 0)[0], atol=5e-3, rtol=0)
    assert fit_label_temperature(probabilities_NK[:20].log(), targets_NK[:20]) == 1
    certain = torch.tensor([[0.0, 1.0, 0.5]]).log()
    torch.testing.assert_close(
        apply_label_temperature(certain, 2.0).exp(), torch.tensor([[0, 1, 0.5]]), atol=1e-3, rtol=0
    )


def test_f1_thresholds_are_the_best_of_all():
    probabilities_NK, targets_NK = sample(200, 1)
    probabilities_NK = (probabilities_NK * 20).round() / 20  # ties
    targets_NK[:, 4], targets_NK[:, 5] = False, True
    targets_NK[: MIN_LABEL_IMAGES - 1, 4] = True
    thresholds = fit_f1_thresholds(probabilities_NK, targets_NK)
    assert thresholds[4:] == (0.5, 0.5)
    for k in range(4):
        scores_N, is_label_N = probabilities_NK[:, k].numpy(), targets_NK[:, k].numpy()
        best = max(f1_score(is_label_N, scores_N >= limit) for limit in np.unique(scores_N))
        assert f1_score(is_label_N, scores_N >= thresholds[k]) == pytest.approx(best)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_contain_the_labels_of_new_images(coverage: float):
    probabilities_NK, targets_NK = sample(40 * 220, 2)
    shares = []
    for p, y in zip(probabilities_NK.split(220), targets_NK.split(220), strict=True):
        threshold = fit_label_set_threshold(p[:40], y[:40], coverage)
        new_NK, has_some_N = y[40:], y[40:].any(1)
        found_N = ((p[40:] >= threshold) & new_NK).sum(1) / new_NK.sum(1)
        shares.append(float(found_N[has_some_N].mean()))
    assert coverage - 0.02 <= np.mean(shares) <= coverage + 0.06


def test_too_few_images_for_a_set():
    probabilities_NK, targets_NK = torch.full((5, 3), 0.4), torch.eye(5, 3).bool()
    assert fit_label_set_threshold(probabilities_NK, targets_NK, 0.9) == 0
    assert fit_label_set_threshold(probabilities_NK, targets_NK, 0.5) == pytest.approx(0.4)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        fit_label_set_threshold(probabilities_NK, targets_NK, 1.0)
    with pytest.raises(DataError, match="no validation images with labels"):
        calibrate_labels(probabilities_NK, torch.zeros(5, 3).bool())


def test_calibration_decides():
    probabilities_NK, targets_NK = sample(600, 3, scale=2.0)
    fitted = calibrate_labels(probabilities_NK, targets_NK)
    assert fitted.target == "F1"
    assert fitted.images == 600
    assert fitted.temperature == pytest.approx(2, rel=0.2)
    assert Calibration.from_dict(fitted.as_dict()) == fitted
    calibrated_NK = apply_label_temperature(probabilities_NK.log(), fitted.temperature).exp()
    said_NK, sets_NK = fitted.decide_labels(calibrated_NK), fitted.label_sets(calibrated_NK)
    assert sets_NK[said_NK].all()
    has_some_N = targets_NK.any(1).numpy()
    covered_N = (sets_NK & targets_NK.numpy()).sum(1)[has_some_N] / targets_NK.sum(1).numpy()[has_some_N]
    assert covered_N.mean() >= fitted.coverage
    precise = calibrate_labels(probabilities_NK, targets_NK, precision=0.9)
    assert precise.target == "precision 0.9"
    said_NK = precise.decide_labels(calibrated_NK)
    assert (targets_NK.numpy() & said_NK).sum(0) / said_NK.sum(0) == pytest.approx(0.9, abs=0.08)
    with pytest.raises(ConfigError, match="exactly one"):
        calibrate_labels(probabilities_NK, targets_NK, precision=0.9, recall=0.9)


def test_without_thresholds_one_half_decides():
    plain, never = Calibration(images=0), Calibration(images=9, thresholds=(None, 0.2), set_threshold=0.1)
    probabilities_NK = np.array([[0.6, 0.15], [0.5, 0.49]], np.float32)
    assert plain.decide_labels(probabilities_NK).tolist() == [[True, False], [True, False]]
    assert never.decide_labels(probabilities_NK).tolist() == [[False, False], [False, True]]
    assert never.label_sets(probabilities_NK).tolist() == [[True, True], [True, True]]
