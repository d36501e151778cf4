"""Worker output is copied to run.log, with the traceback that ends it."""

import sys

import pytest

from jobs.launch.worker_log import tee_output


def test_lines_are_logged_with_the_workers_name_and_still_printed(tmp_path, capsys):
    (tmp_path / "run.log").write_text("before\n")
    with tee_output(tmp_path / "run.log", "worker 1"):
        print("one\ntwo")
        print("half", end="")
        print("10 %\r20 %\rdone", file=sys.stderr)
    print("after")
    assert (
        tmp_path / "run.log"
    ).read_text() == "before\nworker 1: one\nworker 1: two\nworker 1: done\nworker 1: half\n"
    assert capsys.readouterr().out == "one\ntwo\nhalf\nafter\n"


def test_traceback_is_logged(tmp_path):
    with pytest.raises(ValueError, match="no more"), tee_output(tmp_path / "run.log", "worker 0"):
        raise ValueError("no more")
    assert "worker 0: ValueError: no more\n" in (tmp_path / "run.log").read_text()
