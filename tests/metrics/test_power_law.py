"""Power laws of learning curves: recovered from their own points; no floor from too few of them."""

import numpy as np
import pytest

from classifier.errors import DataError
from classifier.metrics.power_law import fit_power_law, resample_power_law

SIZES = [500, 1000, 2000, 4000, 8000, 16000]
MANY = 1_000_000  # validation images


def test_power_law_is_recovered_from_its_points():
    law = fit_power_law(SIZES, [2.0 * n**-0.4 for n in SIZES], validation_images=MANY)
    assert law.slope == pytest.approx(0.4)
    assert law.floor == 0.0
    assert law(64_000) == pytest.approx(2.0 * 64_000**-0.4)


def test_floor_is_found_where_there_is_one():
    law = fit_power_law(SIZES, [3.0 * n**-0.6 + 0.05 for n in SIZES], validation_images=MANY)
    assert law(10**7) == pytest.approx(0.05, rel=0.15)


def test_noise_adds_no_floor():
    rng = np.random.default_rng(0)
    floors = [
        fit_power_law(SIZES, [2.0 * n**-0.4 * np.exp(0.05 * rng.normal()) for n in SIZES], validation_images=MANY).floor
        for _ in range(50)
    ]
    assert sum(floor > 0 for floor in floors) <= 5


def test_errors_of_zero_are_fitted():
    law = fit_power_law([100, 200, 400], [0.1, 0.02, 0.0], validation_images=100)
    assert 0 < law(800) < 0.01


def test_error_of_zero_is_half_an_error_in_the_validation_images():
    """Not in the training images: no error in 22 images does not promise one in 1,304."""
    few, many = (fit_power_law([326, 652, 1304], [0.0, 0.0, 0.0], validation_images=n) for n in (22, 2000))
    assert few(1304) == pytest.approx(0.5 / 22)
    assert many(1304) == pytest.approx(0.5 / 2000)


def gain_interval(errors: list[float], validation_images: int) -> tuple[float, float]:
    law = fit_power_law(SIZES, errors, validation_images=validation_images)
    laws = resample_power_law(law, SIZES, errors, validation_images=validation_images)
    low, high = np.quantile([one(16_000) - one(32_000) for one in laws], [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize(("validation_images", "width"), [(200, 0.006), (5000, 0.002)])
def test_interval_of_the_gain_holds_the_true_gain(validation_images, width):
    rng, true, held, widths = np.random.default_rng(0), 2.0 * (16_000**-0.4 - 32_000**-0.4), 0, []
    for _ in range(40):
        errors = [rng.binomial(validation_images, 2.0 * n**-0.4) / validation_images for n in SIZES]
        low, high = gain_interval(errors, validation_images)
        held += low <= true <= high
        widths.append(high - low)
    assert held >= 32  # 38 of 40 are 95 %
    assert np.mean(widths) == pytest.approx(width, rel=0.5)


def test_interval_of_the_gain_is_wider_where_trainings_differ():
    smooth = [2.0 * n**-0.4 for n in SIZES]
    scattered = [error * factor for error, factor in zip(smooth, (1.3, 0.8, 1.2, 0.7, 1.3, 0.8), strict=True)]
    (low, high), (scattered_low, scattered_high) = (gain_interval(errors, 5000) for errors in (smooth, scattered))
    assert scattered_high - scattered_low > 2 * (high - low)


def test_two_sizes_raise():
    with pytest.raises(DataError, match="at least 3 sizes"):
        fit_power_law([100, 200], [0.2, 0.1], validation_images=MANY)
