"""What the end of a search takes, told by what its trials took; and a last training that must not come too late."""

from types import SimpleNamespace
from typing import Any

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.profiling.step_time import StepTime
from classifier.runs.folder import Run
from classifier.runtime import timing
from classifier.runtime.timing import Deadline
from classifier.search import budget
from classifier.search.budget import ConclusionEstimate
from jobs.search import history, refit
from jobs.search.plan import _cut, _too_slow

END = ConclusionEstimate(
    epoch_seconds=2.0,
    prediction_epochs=3.0,
    refit_epoch_factor=1.5,
    refit_epochs=10,
    max_refit_seconds=60.0,
    refit_start_seconds=3.0,
    trial_slowdown=2.0,
)


@pytest.fixture
def now(monkeypatch) -> SimpleNamespace:
    """The time, which a test sets."""
    clock = SimpleNamespace(time=100.0)
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock.time)
    return clock


def test_the_end_is_its_rest_and_a_last_training_within_bounds():
    assert END.total_seconds() == 7 + 3 * 2 + 3 + 1.5 * 10 * 2
    assert END.total_seconds(1.0) == 7 + 3 + 3 + 15
    assert END.total_seconds(1.0, epochs=20) == 7 + 3 + 3 + 30
    assert END.total_seconds(8.0) == 7 + 24 + 3 + 60  # not more than half of the minutes
    assert ConclusionEstimate(2.0, 3.0, 0.0, 10, 60.0).total_seconds() == 7 + 6  # no last training


def test_what_trials_take_moves_the_end_of_the_trials(tmp_path):
    experiment = Experiment().override("search.minutes", 5.0)
    plan: Any = SimpleNamespace(experiment=experiment, end=END)
    clock = history.Clock(SimpleNamespace(folder=tmp_path, seconds=0.0), plan)  # pyright: ignore[reportArgumentType]
    before = clock.left()
    board: Any = SimpleNamespace(epoch_seconds=lambda: 1.0, rows={"a": SimpleNamespace(sample={})})
    clock.hear(board)
    assert clock.left() - before == pytest.approx(END.total_seconds() - END.total_seconds(1.0), abs=0.1)
    board.rows["b"] = SimpleNamespace(sample={"train.epochs": 30})  # which may be trained once more
    clock.hear(board)
    assert clock.left() - before == pytest.approx(END.total_seconds() - END.total_seconds(1.0, epochs=30), abs=0.1)
    assert clock.left_to_train(1.0) == pytest.approx(300 - END.seconds_without_refit(1.0), abs=1)


def test_a_training_in_time_is_left_alone(now):
    deadline = Deadline(100.0)
    for done in range(1, 60):
        now.time += 1.0
        deadline.update(float(done), 100)
        assert not deadline.is_missed


def run(deadline: Deadline, now: SimpleNamespace, epochs: int, *, of: int, seconds: float) -> None:
    done = deadline.seen[-1][1] if deadline.seen else 0.0
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
            epochs, stops, deadline = deadline.fitting, stops + 1, Deadline(end - now.time)
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
        assert (deadline.is_missed, deadline.fitting) == (fitting > 0, fitting)


def test_without_a_limit_no_training_is_late(now):
    deadline = Deadline(float("inf"))
    for done in range(1, 20):
        now.time += 5.0
        deadline.update(float(done), 10**9)
    assert not deadline.is_missed


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load(Experiment().data)


def cut(digits: Dataset, minutes: float, monkeypatch, **more: Any) -> tuple[Experiment, list[str]]:
    """Of 100 epochs of 0.38 s each, without their validation."""
    monkeypatch.setattr("jobs.search.plan.largest_node_cores", lambda: 2.0)
    settings = {"train.epochs": 100, "search.minutes": minutes, "search.final": True, "data.batch": 32}
    experiment = Experiment().override_all(settings | more)
    return _cut(experiment, digits, StepTime(0.01), {"CPU": 2.0})


def test_before_a_last_training_trials_are_shorter(digits, monkeypatch):
    experiment, words = cut(digits, 2.0, monkeypatch)
    assert experiment.search.final_epochs == 100
    assert 25 <= experiment.train.epochs <= 50
    assert "the last training has 100 epochs" in words[0]
    end = budget.estimate_conclusion(experiment, digits, StepTime(0.01)).total_seconds()
    assert 4 * budget.trial_seconds(experiment, digits, StepTime(0.01)) <= 120 - end + 1


def test_minutes_that_hold_many_trials_leave_them_as_they_are(digits, monkeypatch):
    experiment, words = cut(digits, 20.0, monkeypatch)
    assert (experiment.train.epochs, experiment.search.final_epochs, words) == (100, None, [])


def test_epochs_that_the_user_named_are_cut_only_where_no_trial_would_end(digits, monkeypatch):
    experiment, _ = cut(digits, 2.0, monkeypatch, **{"search.epochs": 100})
    assert (experiment.train.epochs, experiment.search.final_epochs) == (100, None)
    experiment, words = cut(digits, 1.0, monkeypatch, **{"search.epochs": 100})
    assert experiment.train.epochs < 100
    assert "would take" in words[0]


def test_an_architecture_of_which_one_trial_takes_most_of_their_time_is_left_out(digits):
    """By what a step of it takes; the recipe's own stays."""
    steps = {"resnet9_16": StepTime(0.02), "resnet9_32": StepTime(0.04)}
    place: Any = SimpleNamespace(dataset=digits, call=lambda _, experiment, **__: steps[experiment.model.name])
    experiment = Experiment().override_all({"model.name": "cnn", "train.epochs": 20})
    needed = {
        name: budget.trial_seconds(experiment.override("model.name", name), digits, step)
        for name, step in steps.items()
    }
    held = 2 * needed["resnet9_16"] + 1
    left_out = _too_slow(experiment, place, ["cnn", *steps], held)
    assert [*left_out] == ["resnet9_32"]


def test_a_last_training_goes_on_where_it_was_begun_for_the_same_winner(tmp_path):
    work: Any = SimpleNamespace(run=Run(tmp_path))
    run, epochs = refit._begun(work, "first", elsewhere=False)
    assert epochs is None
    run.write_experiment(Experiment().override("train.epochs", 7))
    assert refit._begun(work, "first", elsewhere=False)[1] == 7
    run, epochs = refit._begun(work, "second", elsewhere=False)
    assert epochs is None
    assert not (run.folder / "experiment.yaml").exists()
