"""Schedules equal torch's schedulers, where torch has the same shape."""

import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from classifier.config.sections import ScheduleConfig
from classifier.training import schedule

STEPS, STEPS_PER_EPOCH = 200, 10


def scales(steps: int = STEPS, **changes) -> list[float]:
    config = ScheduleConfig(**changes)
    return [schedule.scale_at(config, step=s, steps=steps, steps_per_epoch=STEPS_PER_EPOCH)[0] for s in range(steps)]


def torchs(make, steps: int = STEPS, every: int = 1) -> tuple[list[float], list[float]]:
    """Learning rates and momenta of a torch scheduler, stepped after every `every` steps; the peak is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    rates, momenta = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the optimizer itself need not step
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            momenta.append(optimizer.param_groups[0]["momentum"])
            if (step + 1) % every == 0 and step + 1 < steps:
                scheduler.step()
    return rates, momenta


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_equals_torchs(final):
    theirs, _ = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=final))
    assert scales(name="cosine", warmup=0.0, final=final) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("steps", [10, 23, 200])
@pytest.mark.parametrize("warmup", [0.2, 0.35])
def test_onecycle_equals_torchs(steps, warmup):
    def make(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=warmup, final_div_factor=4)

    rates, momenta = torchs(make, steps)
    config = ScheduleConfig(name="onecycle", warmup=warmup, final=0.01)
    mine = [schedule.scale_at(config, step=s, steps=steps, steps_per_epoch=STEPS_PER_EPOCH) for s in range(steps)]
    assert [scale for scale, _ in mine] == pytest.approx(rates, abs=1e-9)
    assert [0.9 + (shift or 0.0) for _, shift in mine] == pytest.approx(momenta, abs=1e-9)


def test_linear_decays_to_final():
    theirs, _ = torchs(lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=STEPS))
    assert scales(name="linear", warmup=0.0, final=0.2) == pytest.approx(theirs, abs=1e-9)


def test_step_equals_torchs():
    theirs, _ = torchs(lambda o: lr_scheduler.StepLR(o, 6, gamma=0.3), every=STEPS_PER_EPOCH)
    assert scales(name="step", warmup=0.0, step_epochs=6, step_factor=0.3) == pytest.approx(theirs)
    assert min(scales(name="step", warmup=0.0, step_epochs=6, step_factor=0.3, final=0.2)) == 0.2


def test_constant():
    assert set(scales(name="constant", warmup=0.0)) == {1.0}


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "step", "plateau"])
def test_warmup_is_linear(name):
    values = scales(name=name, warmup=0.25, step_epochs=100)
    assert values[:50] == pytest.approx([(s + 1) / 50 for s in range(50)])
    assert values[50] == 1
    assert values[50:] == sorted(values[50:], reverse=True)


@pytest.mark.parametrize("name", ["cosine", "linear", "onecycle"])
def test_last_step_reaches_final(name):
    values = scales(name=name, warmup=0.2, final=0.05)
    assert values[-1] == pytest.approx(0.05, abs=0.01)
    assert max(values) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["cosine", "onecycle", "linear", "step", "plateau", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 11])
def test_short_runs_start_with_a_positive_rate(name, warmup, steps):
    values = scales(steps, name=name, warmup=warmup)
    assert values[0] > 0
    assert all(0 <= value <= 1 for value in values)


def test_only_onecycle_shifts_the_momentum():
    for name in ("cosine", "linear", "step", "plateau", "constant"):
        config = ScheduleConfig(name=name)
        assert schedule.scale_at(config, step=3, steps=9, steps_per_epoch=3)[1] is None


def test_plateau_scale_per_reduction():
    config = ScheduleConfig(name="plateau", warmup=0.0, step_factor=0.5, final=0.1)
    values = [schedule.scale_at(config, step=50, steps=99, steps_per_epoch=9, reductions=n)[0] for n in range(5)]
    assert values == [1, 0.5, 0.25, 0.125, 0.1]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "loss"])
def test_plateau_counts_as_torchs(metric):
    generator = torch.Generator().manual_seed(3)
    scores = (torch.rand(60, generator=generator) * 0.3 + torch.linspace(0, 0.5, 60).sqrt()).tolist()
    if metric == "loss":
        scores = [-score for score in scores]
    plateau = schedule.Plateau(ScheduleConfig(name="plateau", step_epochs=4), metric=metric)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    mode = "min" if metric == "loss" else "max"
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=3, threshold=0.0, eps=0.0)
    for n, score in enumerate(scores):
        if n == 30:  # a resumed run goes on counting
            state = plateau.state_dict()
            plateau = schedule.Plateau(ScheduleConfig(name="plateau", step_epochs=4), metric=metric)
            plateau.load_state_dict(state)
        plateau.update(score)
        theirs.step(score)
        assert 0.5**plateau.reductions == optimizer.param_groups[0]["lr"]
    assert plateau.reductions > 3


def test_nan_score_is_no_improvement():
    plateau = schedule.Plateau(ScheduleConfig(name="plateau", step_epochs=2), metric="accuracy")
    for score in (math.nan, math.nan, 0.5, math.nan):
        plateau.update(score)
    assert (plateau.reductions, plateau.best, plateau.bad_epochs) == (1, 0.5, 1)
