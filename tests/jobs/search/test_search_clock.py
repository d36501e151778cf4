"""The time that a search reserves for its conclusion."""

import pytest

from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from classifier.search.budget import ConclusionEstimate
from jobs.search.history import SearchClock
from jobs.search.leaderboard import Leaderboard
from jobs.search.tuner import TrialEvent
from tests.jobs.search.conftest import search_plan

CONCLUSION = ConclusionEstimate(
    epoch_seconds=2.0,
    prediction_epochs=3.0,
    refit_epoch_factor=1.5,
    refit_epochs=10,
    max_refit_seconds=60.0,
    refit_start_seconds=3.0,
    trial_slowdown=2.0,
)


def test_conclusion_is_a_refit_within_its_limit_and_the_rest():
    assert CONCLUSION.total_seconds() == 7 + 3 * 2 + 3 + 1.5 * 10 * 2
    assert CONCLUSION.total_seconds(1.0) == 7 + 3 + 3 + 15
    assert CONCLUSION.total_seconds(1.0, epochs=20) == 7 + 3 + 3 + 30
    assert CONCLUSION.total_seconds(8.0) == 7 + 24 + 3 + 60  # max_refit_seconds
    assert ConclusionEstimate(2.0, 3.0, 0.0, 10, 60.0).total_seconds() == 7 + 6  # no refit


def test_until_a_trial_is_complete_time_is_kept_only_for_a_refit_that_is_worthwhile(tmp_path):
    """The 10 epochs of the refit, with half as many images again, are worth 19 epochs of a trial."""
    run = RunFolder(tmp_path)
    plan = search_plan(Experiment().override("search.minutes", 5.0), conclusion=CONCLUSION)
    board, clock = Leaderboard(run, plan), SearchClock(run, plan)
    assert clock.trial_seconds_left() == pytest.approx(300, abs=1)  # and none for a test of nothing
    only_test, both = CONCLUSION.seconds_without_refit(1.0), CONCLUSION.total_seconds(1.0)
    for epoch, is_complete, kept in ((1, False, both), (19, False, both), (20, False, only_test), (30, True, both)):
        scores = {"epoch": epoch, "whole": is_complete, "seconds": 2.0, "accuracy": 0.5, "macro_f1": 0.5, "loss": 1.0}
        board.best_epochs.update("a", scores)
        board.record(TrialEvent("a", {}, scores), 0.0)
        clock.update(board)
        assert clock.trial_seconds_left() == pytest.approx(300 - kept, abs=1)


def test_speed_of_the_leading_trial_changes_the_time_left_for_trials(tmp_path):
    run = RunFolder(tmp_path)
    plan = search_plan(Experiment().override("search.minutes", 5.0), conclusion=CONCLUSION)
    board, clock = Leaderboard(run, plan), SearchClock(run, plan)
    seconds_at_start = clock.seconds_left()

    def report(trial: str, changes: dict, accuracy: float) -> None:
        """One epoch of 2 s, beside another trial: 1 s with the machine to itself."""
        scores = {"epoch": 1, "whole": True, "seconds": 2.0, "accuracy": accuracy, "macro_f1": 0.5, "loss": 1.0}
        board.best_epochs.update(trial, scores)
        board.record(TrialEvent(trial, changes, scores), 0.0)
        clock.update(board)

    trials = ("probe", {"train.epochs": 1}, 0.4, 1), ("a", {}, 0.5, 10), ("longer", {"train.epochs": 30}, 0.5, 30)
    for trial, changes, accuracy, refit_epochs in trials:
        report(trial, changes, accuracy)
        gained = CONCLUSION.total_seconds() - CONCLUSION.total_seconds(1.0, epochs=refit_epochs)
        assert clock.seconds_left() - seconds_at_start == pytest.approx(gained, abs=0.5)
    assert clock.trial_seconds_left() == pytest.approx(clock.seconds_left(), abs=0.5)  # a trial is complete
    assert clock.training_seconds_left(1.0) == pytest.approx(300 - CONCLUSION.seconds_without_refit(1.0), abs=1)
