"""Ctrl-C: answered at once, a request to stop, and the second one ends the process."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from classifier.runs.status import read_status
from jobs.cli.interrupts import ANSWER, Interrupts
from tests.conftest import ROOT


def test_first_signal_is_a_request_and_in_a_python_session_the_second_ctrl_c_raises():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.stop_requested
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_while_there_is_nothing_to_save_the_first_signal_raises():
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.nothing_to_save():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), interrupts.nothing_to_save():
            raise AssertionError("was asked to stop before")


def test_outside_the_main_thread_nothing_is_handled():
    handlers = []

    def work() -> None:
        with Interrupts() as interrupts:
            handlers.append(signal.getsignal(signal.SIGINT))
            assert not interrupts.stop_requested

    thread = threading.Thread(target=work)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert handlers == [before]


BLOCKED = """
import ctypes
from jobs.cli.interrupts import Interrupts, answer_interrupts
answer_interrupts()
with Interrupts() as interrupts:
    interrupts.say_how_to_resume = lambda: print("resume it: so", flush=True)
    print("blocked", flush=True)
    mutex = ctypes.create_string_buffer(256)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex), lock(mutex)  # never returns, whatever signal arrives
"""


def test_blocked_main_thread_holds_up_neither_the_answer_nor_the_end():
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == "blocked\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == ANSWER + "\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5  # on a busy machine; else at once
    assert (process.returncode, out, err) == (130, "resume it: so\n", "")


@pytest.mark.parametrize("end", ["ctrl-c twice", "kill"])
def test_run_that_was_cut_off_is_stopped_and_keeps_its_scores(verb, started, tmp_path, end):
    process = started("train", "--train.epochs", "500", "--name", "a", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    folder, deadline = tmp_path / "runs" / "a", time.monotonic() + 120
    while not (folder / "history.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert read_status(folder) == "running"
    if end == "kill":
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    else:
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == ANSWER + "\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, "")
        assert "stopped; resume it: " in out
        assert out.endswith("--resume runs/a\nruns/a\n")
        assert "stopped; resume it: " in (folder / "run.log").read_text()
    assert read_status(folder) == "stopped"
    (row,) = [line for line in verb("runs").out.splitlines() if line.startswith("a ")]
    assert " stopped " in row
    assert "%" in row
