"""What the model says of a frame: the answer to its region, smoothed over time."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classifier.bundle.predictor import NO_LABEL
from classifier.errors import ConfigError, DataError
from classifier.watch.counts import Counts
from classifier.watch.metrics import WatchMetrics
from classifier.watch.motion import MotionFilter
from classifier.watch.smoothing import Smoother
from classifier.watch.sources.frame import Frame

if TYPE_CHECKING:
    from classifier.bundle.predictor import Predictor

NOT_SURE, UNLIKE = "not sure", "unlike anything seen"
"""What a model may say besides a class, in the order in which they follow the classes in `Observation.values`."""
TOP = 5
"""Most likely classes that are named."""


@dataclass(frozen=True)
class Region:
    """A part of each frame: left, top, width and height as fractions of its own."""

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Read `x,y,w,h`. ConfigError if that is not a part of a frame."""
        try:
            numbers = [float(word) for word in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 4 and all(0 <= number <= 1 for number in numbers):
            left, top, width, height = numbers
            if min(width, height) > 0 and max(left + width, top + height) <= 1 + 1e-9:
                return cls(left, top, width, height)
        raise ConfigError(
            f"--region {text!r} is no part of a frame: give x,y,w,h as fractions of its size, as in 0.5,0,0.5,1"
        )

    def crop(self, pixels_HWC: np.ndarray) -> np.ndarray:
        """Return this part of an image, of at least one pixel."""
        height, width = pixels_HWC.shape[:2]
        top, left = min(round(self.top * height), height - 1), min(round(self.left * width), width - 1)
        bottom, right = round((self.top + self.height) * height), round((self.left + self.width) * width)
        return pixels_HWC[top : max(bottom, top + 1), left : max(right, left + 1)]


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known after a frame."""

    frame: Frame
    path: Path | None
    """Of an image file."""
    pixels_HWC: np.ndarray
    """The whole frame; of an image file, what the model sees of it."""
    values: np.ndarray
    """Smoothed: the probability of each class, and of those above where they are nested; then how often the model is
    not sure, and finds nothing alike."""
    answer: str
    """The class, or labels, "not sure" or "unlike anything seen", of the smoothed values."""
    top: tuple[tuple[str, float], ...]
    """The most likely classes with their smoothed probabilities."""


class Observer:
    """Answers frames with a model. half_life: in seconds, of videos; motion: see MotionFilter."""

    def __init__(
        self,
        predictor: "Predictor",
        counts: Counts,
        metrics: WatchMetrics,
        *,
        region: Region | None = None,
        half_life: float = 0.0,
        motion: float = 0.0,
    ) -> None:
        self.predictor, self.region = predictor, region
        self._counts, self._metrics = counts, metrics
        self._motion, self._smoother = MotionFilter(motion), Smoother(half_life)
        self._latest: np.ndarray | None = None

    def observe(self, frame: Frame) -> Observation:
        """Answer a frame. DataError if it is an image file that cannot be read."""
        if frame.is_first:
            self._motion.forget()
            self._smoother.forget()
        began = time.monotonic()
        content = frame.read()
        image_CHW = self._prepare(content)
        decoded = time.monotonic()
        if self._latest is not None and self._motion.is_unchanged(image_CHW):
            self._counts.unchanged += 1
        else:
            self._latest = self._answer(image_CHW)
            self._counts.answered += 1
            self._metrics.observe(decoded - began, time.monotonic() - decoded)
        if isinstance(content, np.ndarray):
            path, pixels_HWC, values = None, content, self._smoother.update(self._latest, frame.seconds)
        else:  # images of a folder may have nothing to do with each other
            path, pixels_HWC, values = content, _to_rgb(image_CHW), self._latest
        probabilities_K = values[: len(self.predictor.class_names)].astype(np.float32)
        top = self.predictor.top(probabilities_K, TOP)
        return Observation(frame, path, pixels_HWC, values, self._describe(values), top)

    def _prepare(self, content: np.ndarray | Path) -> np.ndarray:
        """Return what the model sees of a frame, uint8."""
        if self.region is not None and isinstance(content, np.ndarray):
            content = np.ascontiguousarray(self.region.crop(content))
        [image_CHW] = self.predictor.images.decode([content if isinstance(content, np.ndarray) else str(content)])
        if isinstance(image_CHW, DataError):
            raise image_CHW
        return image_CHW

    def _answer(self, image_CHW: np.ndarray) -> np.ndarray:
        judgement = self.predictor.judge(image_CHW[None])
        is_unsure = judgement.decisions_N[0] < 0 and judgement.said_NK is None  # that it has no label is an answer
        states = (is_unsure, judgement.is_ood_N[0])
        above = self.predictor.hierarchy.sum_up(judgement.probabilities_NK)[0] if self.predictor.hierarchy else ()
        return np.array([*judgement.probabilities_NK[0], *above, *states], np.float64)

    def _describe(self, values: np.ndarray) -> str:
        if values[-1] > 0.5:
            return UNLIKE
        probabilities_NK = values[None, : len(self.predictor.class_names)].astype(np.float32)
        (decision,), _, said_NK = self.predictor.decide(probabilities_NK)
        if said_NK is not None:
            return ", ".join(self.predictor.name(said_NK[0], probabilities_NK[0])) or NO_LABEL
        return NOT_SURE if decision < 0 else self.predictor.answer_names[decision]


def _to_rgb(image_CHW: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(image_CHW, (3, *image_CHW.shape[1:])).transpose(1, 2, 0))
