"""The display of a search fits into 80 x 24, and says which trial it is and how much time is left."""

import io
import time

from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from jobs.cli.display import console
from jobs.search.history import SearchClock
from jobs.search.leaderboard import Leaderboard
from jobs.search.live_table import LiveTable
from jobs.search.tuner import TrialEvent
from tests.jobs.search.conftest import search_plan

CHANGES = {"model.name": "resnet9_32", "optimizer.lr": 0.00123, "optimizer.weight_decay": 0.0123, "data.batch": 128}


def make_table(folder, trials: int, *, ended: int = 0, minutes: float | None = None) -> LiveTable:
    experiment = Experiment().override_all({"search.trials": 30, "search.minutes": minutes})
    plan, run = search_plan(experiment), RunFolder(folder)
    board = Leaderboard(run, plan)
    table = LiveTable(board, SearchClock(run, plan))
    for n in range(trials):
        name, report = f"{n:08x}", {"epoch": 1, "whole": True, "seconds": 1.0, "loss": 0.5, "accuracy": 1.0}
        board.best_epochs.update(name, report)
        board.record(TrialEvent(name, CHANGES, report), float(n))
        if n < ended:
            board.record(TrialEvent(name, CHANGES, report, has_ended=True), float(n))
    table.update()
    return table


def lines_of(table: LiveTable) -> list[str]:
    file = io.StringIO()
    console(file=file, width=80, height=24, force_terminal=True, color_system=None).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_many_trials_with_many_changes_fit_into_80_x_24(tmp_path):
    lines = lines_of(make_table(tmp_path, 30, minutes=5))
    assert len(lines) <= 20  # and lines above it remain in sight
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("00000000   100.00%  0.500       1  finished  resnet9_32  lr 0.00123")
    assert lines[2].endswith("…")
    assert lines[0].startswith("trial 30 of 30  0:00 of 5:00 used  5:00 left")


def test_search_without_minutes_estimates_the_time_left_from_the_trials_that_ended(tmp_path):
    assert lines_of(make_table(tmp_path / "a", 0)) == ["trial 1 of 30  0:00 used  30 trials left  0 ended"]
    table = make_table(tmp_path / "b", 3, ended=2)
    table.began = time.monotonic() - 20
    assert lines_of(table)[0] == "trial 3 of 30  0:00 used  about 4:40 left  2 ended"
