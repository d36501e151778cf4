"""What an experiment costs: sensible figures, and a batch that was really tried."""

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.profiling import step_time
from classifier.training.resolve import resolve


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


@pytest.fixture
def small(digits):
    return resolve(Experiment().override_all({"model.name": "cnn", "data.batch": 32, "train.threads": 1}), digits)


def test_a_step_takes_time(small, digits):
    assert 0 < step_time.measure_step_seconds(small, digits) < 5


def test_a_prediction_in_a_batch_is_cheaper_than_alone(small, digits):
    figures = step_time.measure_prediction(small, digits, 64)
    assert 0 < figures["latency_batch"] < figures["latency"]
    assert figures["size"] > 1000


def test_the_fastest_batch_is_chosen_of_equal_ones_the_largest(small, digits, monkeypatch):
    seconds = {8: 1.0, 16: 1.01, 32: 1.3, 64: 2.6, 128: 9.0, 256: 40.0}
    monkeypatch.setattr(step_time, "measure_step_seconds", lambda experiment, _: seconds[experiment.data.batch])
    batch, speeds = step_time.find_batch_size(small, digits)
    assert batch == 64  # 32 is as fast
    assert list(speeds) == [8, 16, 32, 64, 128, 256]  # two steps back end it


def test_memory_that_ends_bounds_the_batch(small, digits, monkeypatch):
    def step(experiment, _):
        if experiment.data.batch > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    monkeypatch.setattr(step_time, "measure_step_seconds", step)
    assert step_time.find_batch_size(small, digits)[0] == 64


def test_the_batch_is_measured_for_real(small, digits):
    batch, speeds = step_time.find_batch_size(small.override("model.name", "cnn"), digits)
    assert batch in speeds
    assert max(speeds) <= len(digits.train)
    assert all(speed > 0 for speed in speeds.values())


@pytest.mark.parametrize(
    ("seconds", "small_batch_seconds", "per_image", "per_step"),
    [
        (0.5, 0.2, 0.01, 0.1),
        (0.4, 0.1, 0.01, 0.0),  # nothing beside the images
        (0.4, 0.05, 0.01, 0.0),  # a small batch cannot take less than its share
        (0.4, 0.4, 0.0001, 0.396),
        (0.4, 0.9, 0.0001, 0.396),  # another process slowed the small batch down
    ],
)
def test_step_time_splits_into_images_and_overhead(seconds, small_batch_seconds, per_image, per_step):
    found = step_time.split_step_seconds(seconds, small_batch_seconds, batch=40, small_batch=10)
    assert found == pytest.approx((per_image, per_step))


def test_step_time_of_a_batch_of_one_is_all_image():
    assert step_time.split_step_seconds(0.4, 0.4, batch=1, small_batch=1) == (0.4, 0.0)
