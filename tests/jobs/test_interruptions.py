"""A run that is interrupted, in any way and at any time: its result, its page and its log agree with what happened.

Each is then resumed, and ends as if nothing had been.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from classifier.bundle.test_reads import FILE as TEST_READS
from classifier.bundle.test_reads import count_test_reads
from classifier.runs.folder import read_history
from classifier.runs.status import read_status
from jobs.cli.interrupts import ANSWER

SMALL = ("--model.name", "cnn", "--data.limit", "200", "--data.batch", "32", "--name", "a")
EPOCHS = 60
TRAIN = (*SMALL, "--train.epochs", str(EPOCHS))


def wait_for(process, condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until the condition holds; the process must still run then."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be interrupted"


@pytest.fixture(autouse=True)
def hangups_are_not_ignored():
    """As they are by tests under nohup, whose processes inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def interrupt(process, how: str) -> tuple[int, str]:
    """Interrupt a process; its exit code and what it wrote to stderr."""
    if how == "closed pipe":
        process.stdout.close()
        process.stdout = None
    elif how == "ctrl-c twice":
        process.send_signal(signal.SIGINT)
        assert ANSWER + "\n" in iter(process.stderr.readline, "")  # after the names of phases
        process.send_signal(signal.SIGINT)
    else:
        process.send_signal(getattr(signal, how))
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def check_agreement(verb, folder: Path, status: str, test_reads: int) -> None:
    """The result, the status and the pages of the run say the same."""
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        assert (result["status"], result["test_reads"]) == (status, test_reads)
        assert (result["test"] is not None) == bool(test_reads and status == "finished")
        assert bool(result.get("error")) == (status == "failed")
    assert read_status(folder) == status
    assert count_test_reads(folder) == test_reads
    done = verb("report", folder)
    assert done.code == 0, done.err
    page = (folder / "report.html").read_text()
    assert (f"This run did not finish (status: {status})" in page) == (status != "finished")
    words = {0: "has not been read", 1: "was read once."}.get(test_reads, f"was read {test_reads} times")
    assert (words in page) == (bool(test_reads) or (folder / "result.json").exists())
    if (folder / "history.jsonl").exists():
        epochs = [row["epoch"] for row in read_history(folder)]
        assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.parametrize(
    ("how", "code", "status"),
    [
        ("SIGINT", 130, "stopped"),
        ("ctrl-c twice", 130, "stopped"),
        ("SIGTERM", 130, "stopped"),
        ("SIGHUP", 130, "stopped"),
        ("SIGKILL", -signal.SIGKILL, "stopped"),
        ("closed pipe", 1, "failed"),
    ],
)
def test_training_is_interrupted_and_resumed(verb, started, tmp_path, how, code, status):
    folder = tmp_path / "runs" / "a"
    process = started("train", *TRAIN, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process, lambda: len(read_history(folder)) > 1)
    assert interrupt(process, how)[0] == code
    check_agreement(verb, folder, status, test_reads=0)
    if how == "closed pipe":
        assert "the reader of the pipe has ended" in json.loads((folder / "result.json").read_text())["error"]
    if how in ("SIGINT", "SIGTERM", "SIGHUP"):
        assert "resume it: " in (folder / "run.log").read_text()
    done = verb("train", "--resume", "runs/a")
    assert done.code == 0, done.err
    assert len(read_history(folder)) == EPOCHS
    check_agreement(verb, folder, "finished", test_reads=0)


def test_a_run_that_cannot_be_resumed_keeps_its_result_and_its_page(here, photos, tmp_path):
    words = ("--model.name", "cnn", "--data.size", "8", "--train.epochs", "1", "--name", "a")
    done = here("train", "photos", *words)
    assert done.code == 0, done.err
    folder = tmp_path / "runs" / "a"
    before = (folder / "result.json").read_bytes()
    next(photos.glob("red/*")).unlink()
    done = here("train", "--resume", "runs/a")
    assert done.code == 2, done.out
    assert (folder / "result.json").read_bytes() == before
    assert (folder / "report.html").is_file()


def has_read(folder: Path) -> bool:
    return (folder / TEST_READS).exists() and (folder / TEST_READS).stat().st_size > 0


def test_training_killed_at_its_report_and_its_test_is_read_as_often_as_said(verb, started, tmp_path):
    folder = tmp_path / "runs" / "a"
    process = started("train", *SMALL, "--train.epochs", "2")
    wait_for(process, (folder / "result.json").exists)
    interrupt(process, "SIGKILL")
    check_agreement(verb, folder, "finished", test_reads=0)
    process = started("evaluate", "runs/a")
    wait_for(process, lambda: has_read(folder))
    interrupt(process, "SIGKILL")
    assert json.loads((folder / "result.json").read_text())["test_reads"] in (0, 1)
    assert count_test_reads(folder) == 1
    done = verb("evaluate", "runs/a", "--again")
    assert "the test split was read 2 times" in done.out
    assert verb("robust", "runs/a", "--images", "20", "--attacks", "false").code == 0
    check_agreement(verb, folder, "finished", test_reads=3)
    (folder / "bundle").rename(tmp_path / "alone")
    done = verb("evaluate", "alone", "--again", "--data", "digits")
    assert done.code == 0, done.err
    assert done.result["test_reads"] == 4


SEARCH = ("--search.trials", "4", "--train.epochs", "20", "--search.scheduler", "none", "--search.final", "true")
SEARCH = (*SMALL, *SEARCH, "--search.vary", "optimizer.lr=1e-3..1e-2:log")
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "trials": lambda folder: any(map(read_history, (p.parent for p in folder.glob("trials/*/history.jsonl")))),
    "refit": lambda folder: bool(read_history(folder / "final")),
    "test": has_read,
    "report": lambda folder: (folder / "result.json").exists(),
}


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(
    ("moment", "how", "code", "status", "test_reads"),
    [
        ("trials", "SIGINT", 130, "stopped", 0),
        pytest.param("trials", "ctrl-c twice", 130, "stopped", 0, marks=pytest.mark.slow),
        pytest.param("trials", "SIGHUP", 130, "stopped", 0, marks=pytest.mark.slow),
        pytest.param("trials", "closed pipe", 1, "failed", 0, marks=pytest.mark.slow),
        pytest.param("refit", "SIGTERM", 130, "stopped", 0, marks=pytest.mark.slow),
        pytest.param("refit", "SIGKILL", -9, "stopped", 0, marks=pytest.mark.slow),
        pytest.param("test", "SIGKILL", -9, "stopped", 1, marks=pytest.mark.slow),
        pytest.param("report", "SIGKILL", -9, "finished", 1, marks=pytest.mark.slow),
    ],
)
def test_search_is_interrupted_and_resumed(verb, started, tmp_path, moment, how, code, status, test_reads):
    folder = tmp_path / "runs" / "a"
    process = started("tune", *SEARCH, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process, lambda: MOMENTS[moment](folder))
    assert interrupt(process, how)[0] == code
    check_agreement(verb, folder, status, test_reads)
    done = verb("tune", "--resume", "runs/a")
    assert done.code == 0, done.err
    assert done.result["trials"] == {"finished": 4, "stopped": 0, "unfinished": 0, "failed": 0}
    check_agreement(verb, folder, "finished", test_reads + 1)


@pytest.mark.slow
def test_nested_cross_validation_answers_ctrl_c_once_and_goes_on(verb, started, tmp_path):
    words = ("--search", "--folds", "2", "--search.trials", "2", "--train.epochs", "3", "--search.scheduler", "none")
    process = started("crossval", *SMALL, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    folder = tmp_path / "runs" / "a"
    wait_for(process, lambda: any(folder.glob("folds/*/trials/*/history.jsonl")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err.count(ANSWER)) == (130, 1)
    assert out.endswith("--resume runs/a\nruns/a\n")
    done = verb("crossval", "--resume", "runs/a")
    assert done.code == 0, done.err
    assert len(done.result["folds"]["accuracy"]["folds"]) == 2


def test_a_closed_terminal_stops_a_training_that_then_saves(tmp_path):
    """The terminal is gone: what the run still says goes nowhere, rather than end it."""
    import pty

    from tests.conftest import command_of

    master, slave = pty.openpty()
    process = subprocess.Popen(
        command_of("train", *TRAIN), cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    folder = tmp_path / "runs" / "a"
    try:
        wait_for(process, lambda: bool(os.read(master, 10_000)) and len(read_history(folder)) > 1)
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=120) == 130
    finally:
        process.kill()
    assert json.loads((folder / "result.json").read_text())["status"] == "stopped"
