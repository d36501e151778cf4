"""The learning rate over a run: pure functions of the step, so that a resumed run needs no schedule's state."""

import math
from typing import Any

from classifier.config.sections import ScheduleConfig

# One-cycle's first learning rate as a share of the peak, and how far the momentum swings, as in torch's OneCycleLR.
_ONECYCLE_START, _MOMENTUM_SWING = 1 / 25, 0.05


def scale_at(
    config: ScheduleConfig, *, step: int, steps: int, steps_per_epoch: int, falls: int = 0
) -> tuple[float, float | None]:
    """(learning rate as a share of its peak, shift of the momentum or None where it stays) for a step in [0, steps).

    The first warmup * steps steps rise to the peak in a line (P. Goyal et al., "Accurate, large minibatch SGD", 2017),
    then: cosine falls to `final` in half a cosine (I. Loshchilov, F. Hutter, "SGDR", 2017), linear in a straight
    line, step by step_factor every step_epochs epochs, plateau by step_factor for each of `falls`, constant not at all.
    onecycle rises and falls in half cosines, its momentum against it (L. Smith, N. Topin, "Super-convergence", 2018),
    and reaches `final` in the last step. step and plateau do not fall below `final`.
    """
    if config.name == "onecycle":
        return _onecycle(config, step, steps)
    rising = config.warmup * steps
    warm = min(1.0, (step + 1) / rising) if rising else 1.0
    progress = max(0.0, step - rising) / max(1.0, steps - rising)
    if config.name == "cosine":
        scale = _half_cosine(1, config.final, progress)
    elif config.name == "linear":
        scale = 1 + (config.final - 1) * progress
    elif config.name == "constant":
        scale = 1.0
    else:
        count = falls if config.name == "plateau" else step // steps_per_epoch // config.step_epochs
        scale = max(config.final, config.step_factor**count)
    return warm * scale, None


class Plateau:
    """Counts the falls of a plateau schedule: one after each step_epochs epochs without a better validation score."""

    def __init__(self, config: ScheduleConfig, *, metric: str) -> None:
        """metric: the score that `update` is told; of `loss` lower is better, of all others higher."""
        self.patience = config.step_epochs
        self.sign = -1.0 if metric == "loss" else 1.0
        self.best = -math.inf
        self.waited = 0
        self.falls = 0

    def update(self, score: float) -> None:
        """Take an epoch's score; NaN is never better."""
        if self.sign * score > self.best:
            self.best, self.waited = self.sign * score, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.waited, self.falls = 0, self.falls + 1

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited, "falls": self.falls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.best, self.waited, self.falls = state["best"], state["waited"], state["falls"]


def _onecycle(config: ScheduleConfig, step: int, steps: int) -> tuple[float, float]:
    top, last = max(0.0, config.warmup * steps - 1), steps - 1
    if step <= top:
        share = step / top if top else 1.0
        return _half_cosine(_ONECYCLE_START, 1, share), _half_cosine(_MOMENTUM_SWING, -_MOMENTUM_SWING, share)
    share = (step - top) / (last - top)
    return _half_cosine(1, config.final, share), _half_cosine(-_MOMENTUM_SWING, _MOMENTUM_SWING, share)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
