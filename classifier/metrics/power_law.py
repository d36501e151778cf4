"""Power laws of learning curves: error = scale * images^-slope + floor (Hestness et al. 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifier.errors import DataError

# A floor is kept only if it explains this fraction of the residual of a fit without one (a line in log-log space).
MIN_FLOOR_GAIN = 0.75
# Minimum number of sizes for a fit, and for a fit with a floor.
MIN_SIZES, MIN_SIZES_FOR_FLOOR = 3, 5


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law."""

    scale: float
    slope: float
    floor: float = 0.0

    def __call__(self, images: float) -> float:
        """Return the error at that many training images."""
        return self.scale * images**-self.slope + self.floor

    def as_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "slope": self.slope, "floor": self.floor}


def fit_power_law(images: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """Fit a power law by least squares of log errors; an error of 0 counts as half an error in that many images.

    DataError with fewer than three sizes.
    """
    if len(set(images)) < MIN_SIZES:
        raise DataError(f"a learning curve needs at least {MIN_SIZES} sizes to fit: add more to --sizes")
    log_n, n = np.log(np.asarray(images, float)), np.asarray(images, float)
    values = np.maximum(np.asarray(errors, float), 0.5 / n)
    best: tuple[float, PowerLaw] | None = None
    floors = [0.0, *(values.min() * np.linspace(0.05, 0.95, 19))] if len(set(images)) >= MIN_SIZES_FOR_FLOOR else [0.0]
    residual_without_floor = np.inf
    for floor in floors:
        slope, intercept = np.polyfit(log_n, np.log(values - floor), 1)
        law = PowerLaw(float(np.exp(intercept)), float(-slope), float(floor))
        residual = float(np.square(np.log([law(size) for size in n]) - np.log(values)).sum())
        residual_without_floor = residual if floor == 0 else residual_without_floor
        if best is None or (residual < best[0] and residual < (1 - MIN_FLOOR_GAIN) * residual_without_floor):
            best = residual, law
    assert best is not None
    return best[1]
