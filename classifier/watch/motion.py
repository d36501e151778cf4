"""Motion: how much an image differs from the last one that was answered."""

import numpy as np

_CELLS = 32
"""Rows and columns of the small image that is compared, at most."""


class MotionFilter:
    """Finds images that hardly differ from the last one that was answered.

    threshold: mean absolute difference of pixel values, 0 to 255, below which an image is unchanged; 0: none is.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._last: np.ndarray | None = None

    def is_unchanged(self, pixels_CHW: np.ndarray) -> bool:
        """Compare an image, uint8; unless it is unchanged, it is the one to compare the next ones with."""
        if not self.threshold:
            return False
        small = shrink(pixels_CHW)
        if self._last is not None and np.abs(small - self._last).mean() < self.threshold:
            return True
        self._last = small
        return False

    def forget(self) -> None:
        """Find the next image changed, whatever it is."""
        self._last = None


def shrink(pixels_CHW: np.ndarray) -> np.ndarray:
    """Return the mean values of the cells of an image, float32, in each channel; at most 32 x 32 of them.

    In colour, as red may turn blue without a change of its grey.
    """
    channels, height, width = pixels_CHW.shape
    rows, columns = min(_CELLS, height), min(_CELLS, width)
    tall, wide = height // rows, width // columns
    whole = pixels_CHW[:, : rows * tall, : columns * wide]
    return whole.reshape(channels, rows, tall, columns, wide).mean((2, 4), dtype=np.float32)
