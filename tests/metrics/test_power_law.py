"""Power laws of learning curves: recovered from their own points; no floor from too few of them."""

import numpy as np
import pytest

from classifier.errors import DataError
from classifier.metrics.power_law import fit_power_law

SIZES = [500, 1000, 2000, 4000, 8000, 16000]


def test_power_law_is_recovered_from_its_points():
    law = fit_power_law(SIZES, [2.0 * n**-0.4 for n in SIZES])
    assert law.slope == pytest.approx(0.4)
    assert law.floor == 0.0
    assert law(64_000) == pytest.approx(2.0 * 64_000**-0.4)


def test_floor_is_found_where_there_is_one():
    law = fit_power_law(SIZES, [3.0 * n**-0.6 + 0.05 for n in SIZES])
    assert law(10**7) == pytest.approx(0.05, rel=0.15)


def test_noise_adds_no_floor():
    rng = np.random.default_rng(0)
    floors = [
        fit_power_law(SIZES, [2.0 * n**-0.4 * np.exp(0.05 * rng.normal()) for n in SIZES]).floor for _ in range(50)
    ]
    assert sum(floor > 0 for floor in floors) <= 5


def test_errors_of_zero_are_fitted():
    law = fit_power_law([100, 200, 400], [0.1, 0.02, 0.0])
    assert 0 < law(800) < 0.01


def test_two_sizes_raise():
    with pytest.raises(DataError, match="at least 3 sizes"):
        fit_power_law([100, 200], [0.2, 0.1])
