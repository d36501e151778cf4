"""Lines on the progress of a training: they fit into a terminal, and the time left is always among them."""

from typing import Any

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.training.loop import StepProgress
from classifier.training.progress import describe_epoch, describe_run, describe_step, format_clock, format_duration

ROW = {"epoch": 100, "train_accuracy": 1.0, "train_loss": 2.301, "validation_accuracy": 1.0, "validation_loss": 2.302}
STEP = StepProgress(
    epoch=100, epochs=300, step=3_000_000, steps=9_000_001, loss=2.301, accuracy=0.1, images_per_second=12_345.0,
    seconds_left=98_765.0,
)  # fmt: skip


@pytest.mark.parametrize("seconds", [0.3, 45.0, 3599.0])
def test_line_of_an_epoch_fits_into_80_columns_and_marks_an_improvement(seconds):
    better, equal = (describe_epoch(ROW | {"seconds": seconds, "improves": one}, 300) for one in (True, False))
    assert len(better) == len(equal) <= 80
    assert better.count("*") == 1
    assert "*" not in equal


@pytest.mark.parametrize("width", [20, 40, 79, 140])
def test_live_line_fits_and_always_shows_the_time_left(width):
    line = describe_step(STEP, width)
    assert len(line) <= max(width, len("epoch 100/300  27:26:05 left"))
    assert "images/s" in line or width < 140
    if width >= 40:
        assert "27:26:05 left" in line
    assert "-:-- left" in describe_step(StepProgress(**{**vars(STEP), "seconds_left": None}), width=40)


def test_time_left_counts_down_between_steps_and_validation_is_named():
    assert "27:25:55 left" in describe_step(STEP, 79, age_seconds=10)
    last = StepProgress(**{**vars(STEP), "step": 3_000_000, "steps": 9_000_000})
    assert "validating" in describe_step(last)
    assert "validating" not in describe_step(STEP)


def test_durations():
    assert [format_duration(s) for s in (0.04, 9.94, 9.96, 59.4, 59.6, 3725)] == [
        "0.0 s", "9.9 s", "10 s", "59 s", "1:00", "1:02:05",
    ]  # fmt: skip
    assert format_clock(7.2) == "0:07"


def test_a_training_is_described_as_what_it_does():
    dataset = data.load(Experiment().override("data.limit", 64).data)
    experiment = Experiment().override_all({"train.precision": "fp32", "train.device": "cpu"})

    def describe(changes: dict[str, Any]) -> str:
        return list(describe_run(experiment.override_all(changes), dataset))[-1]

    assert describe({"train.epochs": 1}).startswith("resnet9_16, 1 epoch of batch 64, adamw lr 0.003, augment")
    assert describe({"train.epochs": 1, "model.probe": True}) == "resnet9_16, a linear probe, fp32 on cpu"
    large = {"train.epochs": 4, "optimizer.accumulate": 8, "schedule.size_from": 0.5}
    assert "4 epochs of batch 64 x 8 at 4 to 8 pixels, adamw" in describe(large)
    assert "batch 64 at 4 pixels, adamw" in describe({"schedule.size_from": 0.5, "schedule.size_to": 0.5})
    assert "a linear probe, then 2 epochs of batch 64" in describe({"train.epochs": 3, "model.probe": True})
