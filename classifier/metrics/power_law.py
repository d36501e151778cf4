"""What more training images would bring: error = scale * images^-slope + floor (Hestness et al. 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier.errors import DataError

# A floor is believed in where it explains so much of what a straight line (in logarithms) leaves unexplained.
MIN_FLOOR_GAIN = 0.75
# Sizes that a fit needs, and those that a floor needs.
MIN_SIZES, MIN_SIZES_FOR_FLOOR = 3, 5


@dataclass(frozen=True)
class PowerLaw:
    scale: float
    slope: float
    floor: float = 0.0

    def __call__(self, images: float) -> float:
        """The error at that many training images."""
        return self.scale * images**-self.slope + self.floor

    def as_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "slope": self.slope, "floor": self.floor}


def fit_power_law(images: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """The law of least squared differences of logarithms. An error of 0 counts as half a mistake in that many images.

    DataError with fewer than three sizes.
    """
    if len(set(images)) < MIN_SIZES:
        raise DataError(f"a learning curve needs at least {MIN_SIZES} sizes to be fitted: give more --sizes")
    log_n, n = np.log(np.asarray(images, float)), np.asarray(images, float)
    values = np.maximum(np.asarray(errors, float), 0.5 / n)
    best: tuple[float, PowerLaw] | None = None
    floors = [0.0, *(values.min() * np.linspace(0.05, 0.95, 19))] if len(set(images)) >= MIN_SIZES_FOR_FLOOR else [0.0]
    straight = np.inf
    for floor in floors:
        slope, intercept = np.polyfit(log_n, np.log(values - floor), 1)
        law = PowerLaw(float(np.exp(intercept)), float(-slope), float(floor))
        left = float(np.square(np.log([law(size) for size in n]) - np.log(values)).sum())
        straight = left if floor == 0 else straight
        if best is None or (left < best[0] and left < (1 - MIN_FLOOR_GAIN) * straight):
            best = left, law
    assert best is not None
    return best[1]
