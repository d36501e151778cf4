"""Exponential smoothing of values that come at any times."""

import numpy as np


class Smoother:
    """Averages vectors over time: what is half_life seconds old counts half as much. 0: no smoothing."""

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._mean: np.ndarray | None = None
        self._seconds = 0.0

    def update(self, values: np.ndarray, seconds: float) -> np.ndarray:
        """Return the mean after the values at a time, in seconds, that is not before the last one."""
        mean = np.array(values, np.float64)
        if self._mean is not None and self.half_life:
            kept = 0.5 ** ((seconds - self._seconds) / self.half_life)
            mean = kept * self._mean + (1 - kept) * mean
        self._mean, self._seconds = mean, seconds
        return mean

    def forget(self) -> None:
        """Begin again with the next values."""
        self._mean = None
