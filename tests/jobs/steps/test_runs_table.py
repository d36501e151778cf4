"""The table of runs: sorted as people count, and as wide as the terminal without cutting a name."""

import io
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from jobs.steps import runs_table

NAMES = ("photos-2", "photos-10", "photos-9", "train-photos-20261125-100535")


@pytest.fixture
def out(tmp_path) -> Path:
    """Runs with all scores; the first name is the oldest."""
    for n, name in enumerate(NAMES):
        run = RunFolder.create(tmp_path, name)
        config = Experiment().override_all({"data.path": "data/photos/", "model.name": "resnet9_16"}).as_dict()
        scores = {"accuracy": 0.9876, "macro_f1": 0.9, "loss": 0.1, "count": 1}
        run.write_result("train", "finished", config=config, validation=scores, test=scores)
        run.close()
        os.utime(run.folder, (1e9 + n, 1e9 + n))
    return tmp_path


def render(out: Path, width: int) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width).print(runs_table.make_table(runs_table.find_runs(out, (), "when"), width))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_runs_are_sorted_by_time_or_by_the_numbers_in_their_names(out):
    assert [row.folder.name for row in runs_table.find_runs(out, (), "when")] == list(NAMES)
    assert [row.folder.name for row in runs_table.find_runs(out, (), "name")] == [
        *("photos-2", "photos-9", "photos-10", "train-photos-20261125-100535")
    ]
    assert [row.folder.name for row in runs_table.find_runs(out, (), "test")][:3] == [
        "photos-2",
        "photos-9",
        "photos-10",
    ]


@pytest.mark.parametrize("width", [150, 100, 80, 60, 40, 28])
def test_columns_are_left_out_and_names_are_whole(out, width):
    header, *lines = render(out, width)
    assert all(len(line) <= width for line in (header, *lines))
    assert [line.split()[0] for line in lines[: len(NAMES)]] == list(NAMES)
    missing = [name for name in runs_table.JUSTIFY if name not in header]
    assert " ".join(lines[len(NAMES) :]) == (f"left out for lack of room: {', '.join(missing)}" if missing else "")
    assert bool(missing) == (width < 120)
    assert "…" not in "".join(lines)


def test_short_names_leave_room_for_all_but_two_columns_at_80(out):
    shutil.rmtree(out / NAMES[-1])
    header, *lines = render(out, 80)
    assert header.split() == ["run", "verb", "model", "validation", "test", "ended", "when"]
    assert lines[-1] == "left out for lack of room: data, seconds"


def test_a_pipe_gets_every_column(out, here):
    done = here("runs", "--out", str(out))
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].split() == list(runs_table.JUSTIFY)
    assert "left out" not in done.out
