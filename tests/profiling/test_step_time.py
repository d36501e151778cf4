"""Measured costs are plausible, and a batch size that is found was tried."""

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.profiling import step_time
from classifier.runtime.distributed import ProcessGroup
from classifier.training.resolve import resolve
from classifier.training.state import TrainState


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


@pytest.fixture
def small(digits):
    return resolve(Experiment().override_all({"model.name": "cnn", "data.batch": 32, "train.threads": 1}), digits)


def test_step_seconds_are_plausible(small, digits):
    assert 0 < step_time.measure_step_seconds(small, digits) < 5


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        ([1, 1, 1, 9], [1, 1, 1]),
        ([9, 5, 1, 1.05, 1.1, 9], [1, 1.05, 1.1]),  # other work ended
        ([1, 3, 1, 3, 1, 3, 1], [1, 3, 1, 3, 1, 3]),  # until the time is over
        ([100, 100], [100, 100]),  # windows longer than the time: two, or nothing could be said about their spread
    ],
)
def test_measurement_is_repeated_until_windows_agree(seconds, kept):
    now, left = 0.0, iter(seconds)

    def measure():
        nonlocal now
        value = next(left)
        now += 4 if value < 50 else 100
        return [step_time.StepTime(value), step_time.StepTime(value / 4)]

    rounds = step_time.repeat_until_stable(measure, clock=lambda: now)
    assert [full.step_seconds for full, _ in rounds] == kept


def test_growing_images_cost_as_much_as_they_do_on_average_and_need_memory_for_the_largest(small, digits):
    def count(size_from: float) -> tuple[float, float]:
        changes = {"model.name": "resnet9_16", "schedule.size_from": size_from}
        state = TrainState(small.override_all(changes), digits, ProcessGroup(device=torch.device("cpu")))
        return step_time._count_flops_and_activations(state, 1.0)

    (flops, activation_bytes), (whole_flops, whole_bytes) = count(0.5), count(1.0)
    assert flops / whole_flops == pytest.approx(0.625, abs=0.05)  # half of the epochs have a quarter of the pixels
    assert activation_bytes == pytest.approx(whole_bytes, rel=0.01)


def test_prediction_in_a_batch_is_cheaper_than_alone(small, digits):
    costs = step_time.measure_prediction(small, digits, 64)
    assert 0 < costs["latency_batch"] < costs["latency"]
    assert costs["size"] > 1000


def test_find_batch_size_prefers_the_largest_of_equally_fast_ones(small, digits, monkeypatch):
    seconds = {8: 1.0, 16: 1.01, 32: 1.3, 64: 2.6, 128: 9.0, 256: 40.0}
    monkeypatch.setattr(step_time, "measure_step_seconds", lambda experiment, _: seconds[experiment.data.batch])
    batch, speeds = step_time.find_batch_size(small, digits)
    assert batch == 64  # 32 is as fast
    assert list(speeds) == [8, 16, 32, 64, 128, 256]  # ends after two slower ones


def test_out_of_memory_limits_the_batch_size(small, digits, monkeypatch):
    def step(experiment, _):
        if experiment.data.batch > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    monkeypatch.setattr(step_time, "measure_step_seconds", step)
    assert step_time.find_batch_size(small, digits)[0] == 64


def test_find_batch_size_measures_each_size(small, digits):
    batch, speeds = step_time.find_batch_size(small.override("model.name", "cnn"), digits)
    assert batch in speeds
    assert max(speeds) <= len(digits.train)
    assert all(speed > 0 for speed in speeds.values())


@pytest.mark.parametrize(
    ("seconds", "small_batch_seconds", "per_image", "per_step"),
    [
        (0.5, 0.2, 0.01, 0.1),
        (0.4, 0.1, 0.01, 0.0),  # no overhead
        (0.4, 0.05, 0.01, 0.0),  # noise: no negative overhead
        (0.4, 0.4, 0.0001, 0.396),
        (0.4, 0.9, 0.0001, 0.396),  # other work slowed the smaller batch down
    ],
)
def test_step_time_splits_into_images_and_overhead(seconds, small_batch_seconds, per_image, per_step):
    found = step_time.split_step_seconds(seconds, small_batch_seconds, batch=40, small_batch=10)
    assert found == pytest.approx((per_image, per_step))


def test_step_time_of_a_batch_of_one_is_all_image():
    assert step_time.split_step_seconds(0.4, 0.4, batch=1, small_batch=1) == (0.4, 0.0)
