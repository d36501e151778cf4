"""A deadline stops a training that would end too late, and says how many epochs fit."""

from types import SimpleNamespace

import pytest

from classifier.runtime import timing
from classifier.runtime.timing import Deadline


@pytest.fixture
def now(monkeypatch) -> SimpleNamespace:
    """The time, which a test sets."""
    clock = SimpleNamespace(time=100.0)
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock.time)
    return clock


def test_a_training_in_time_is_left_alone(now):
    deadline = Deadline(100.0)
    for done in range(1, 60):
        now.time += 1.0
        deadline.update(float(done), 100)
        assert not deadline.is_missed


def run(deadline: Deadline, now: SimpleNamespace, epochs: int, *, of: int, seconds: float) -> None:
    done = deadline.progress[-1][1] if deadline.progress else 0.0
    for _ in range(epochs):
        if not deadline.is_missed:
            now.time, done = now.time + seconds, done + 1.0
            deadline.update(done, of)


def test_a_training_that_becomes_slower_gets_as_many_epochs_as_fit(now):
    end, epochs, done, stops = now.time + 100, 100, 0.0, 0
    deadline = Deadline(100.0)
    while done < epochs:
        now.time, done = now.time + (1.0 if done < 30 else 2.0), done + 1
        deadline.update(done, epochs)
        if deadline.is_missed:
            epochs, stops, deadline = deadline.epochs_that_fit, stops + 1, Deadline(end - now.time)
    assert 60 <= epochs <= 66
    assert now.time <= end + 3
    assert 1 <= stops <= 4


def test_a_short_delay_is_waited_for(now):
    deadline = Deadline(104.0)
    run(deadline, now, 30, of=100, seconds=1.0)
    run(deadline, now, 2, of=100, seconds=3.0)
    run(deadline, now, 100, of=100, seconds=1.0)
    assert not deadline.is_missed


def test_a_stop_that_gains_less_than_it_takes_is_left_out(now):
    for pause, fitting in ((10.0, 90), (20.0, 0)):
        deadline = Deadline(100.0, pause)
        run(deadline, now, 60, of=115, seconds=1.0)
        assert (deadline.is_missed, deadline.epochs_that_fit) == (fitting > 0, fitting)


def test_without_a_limit_no_training_is_late(now):
    deadline = Deadline(float("inf"))
    for done in range(1, 20):
        now.time += 5.0
        deadline.update(float(done), 10**9)
    assert not deadline.is_missed
