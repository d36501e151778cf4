"""What the end of a search takes, told by what its trials took; and a last training that must not come too late."""

from types import SimpleNamespace
from typing import Any

import pytest

from classifier.config.experiment import Experiment
from classifier.runs.folder import Run
from classifier.search.budget import ConclusionEstimate
from jobs.search import history, refit

END = ConclusionEstimate(
    epoch_seconds=2.0,
    prediction_epochs=3.0,
    refit_epoch_factor=1.5,
    refit_epochs=10,
    max_refit_seconds=60.0,
    refit_start_seconds=3.0,
    trial_slowdown=2.0,
)


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


def test_a_last_training_goes_on_where_it_was_begun_for_the_same_winner(tmp_path):
    work: Any = SimpleNamespace(run=Run(tmp_path))
    run, epochs = refit._begun(work, "first", elsewhere=False)
    assert epochs is None
    run.write_experiment(Experiment().override("train.epochs", 7))
    assert refit._begun(work, "first", elsewhere=False)[1] == 7
    run, epochs = refit._begun(work, "second", elsewhere=False)
    assert epochs is None
    assert not (run.folder / "experiment.yaml").exists()
