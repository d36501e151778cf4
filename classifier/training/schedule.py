"""Learning rate schedules: pure functions of the step, so that a resumed run needs no scheduler state."""

import math
from typing import Any

from classifier.config.sections import ScheduleConfig

# Of the scores that train.metric may be.
LOWER_IS_BETTER = ("loss", "mean_absolute_error")
# One-cycle's initial learning rate as a share of the peak, and the swing of the momentum, as in torch's OneCycleLR.
_ONECYCLE_START, _MOMENTUM_SWING = 1 / 25, 0.05


def scale_at(
    config: ScheduleConfig, *, step: int, steps: int, steps_per_epoch: int, reductions: int = 0
) -> tuple[float, float | None]:
    """(learning rate as a share of its peak, shift of the momentum or None if it is constant) at a step in [0, steps).

    The first warmup * steps steps are a linear warm-up (P. Goyal et al., "Accurate, large minibatch SGD", 2017). Then
    cosine decays to `final` along half a cosine (I. Loshchilov, F. Hutter, "SGDR", 2017), linear in a straight line,
    step by step_factor every step_epochs epochs, plateau by step_factor for each of `reductions`, constant not at all.
    onecycle rises and falls in half cosines, with the momentum inverse to it (L. Smith, N. Topin, "Super-convergence",
    2018), and reaches `final` in the last step. step and plateau do not go below `final`.
    """
    if config.name == "onecycle":
        return _onecycle(config, step, steps)
    warmup_steps = config.warmup * steps
    warmup_scale = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    progress = max(0.0, step - warmup_steps) / max(1.0, steps - warmup_steps)
    if config.name == "cosine":
        scale = _half_cosine(1, config.final, progress)
    elif config.name == "linear":
        scale = 1 + (config.final - 1) * progress
    elif config.name == "constant":
        scale = 1.0
    else:
        count = reductions if config.name == "plateau" else step // steps_per_epoch // config.step_epochs
        scale = max(config.final, config.step_factor**count)
    return warmup_scale * scale, None


class Plateau:
    """Counts the reductions of a plateau schedule: one after step_epochs epochs without a better validation score."""

    def __init__(self, config: ScheduleConfig, *, metric: str) -> None:
        """metric: the score passed to `update`; lower is better for LOWER_IS_BETTER, higher for all others."""
        self.patience = config.step_epochs
        self.sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        self.best = -math.inf
        self.bad_epochs = 0
        self.reductions = 0

    def update(self, score: float) -> None:
        """Record an epoch's score; NaN is never better."""
        if self.sign * score > self.best:
            self.best, self.bad_epochs = self.sign * score, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs >= self.patience:
            self.bad_epochs, self.reductions = 0, self.reductions + 1

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint, under the keys of earlier versions."""
        return {"best": self.best, "waited": self.bad_epochs, "falls": self.reductions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what state_dict returned."""
        self.best, self.bad_epochs, self.reductions = state["best"], state["waited"], state["falls"]


def _onecycle(config: ScheduleConfig, step: int, steps: int) -> tuple[float, float]:
    peak, last = max(0.0, config.warmup * steps - 1), steps - 1
    if step <= peak:
        share = step / peak if peak else 1.0
        return _half_cosine(_ONECYCLE_START, 1, share), _half_cosine(_MOMENTUM_SWING, -_MOMENTUM_SWING, share)
    share = (step - peak) / (last - peak)
    return _half_cosine(1, config.final, share), _half_cosine(-_MOMENTUM_SWING, _MOMENTUM_SWING, share)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
