"""Torch computes with as many threads as there are free cores."""

import subprocess
import sys

import pytest
import torch

from classifier.runtime import threads


@pytest.mark.parametrize(
    ("cores", "busy", "free"),
    [(2, 0.0, 2), (2, 0.5, 2), (2, 0.6, 1), (2, 1.0, 1), (2, 2.0, 1), (16, 8.2, 8), (16, 16.0, 1), (1, 1.0, 1)],
)
def test_free_cores(cores, busy, free):
    assert threads.count_free_cores(cores, busy) == free


class Load:
    """Of other processes on some cores."""

    def __init__(self, busy: float) -> None:
        self.busy = busy

    def busy_cores(self) -> float:
        return self.busy


@pytest.fixture
def four_cores(monkeypatch):
    """Four cores, and no OMP_NUM_THREADS."""
    monkeypatch.setattr(threads, "affine_cores", lambda: 4)
    monkeypatch.setattr(threads, "available_cores", lambda: 4)
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "OMP_NUM_THREADS : [not set]")
    with threads.use_threads(4):
        yield


@pytest.mark.parametrize(
    ("busy", "chosen", "line"),
    [
        (0.2, 4, None),
        (2.6, 1, "other processes keep 2.6 of 4 cores busy: using 1 thread (--train.threads sets the number)"),
        (2.0, 2, "other processes keep 2.0 of 4 cores busy: using 2 threads (--train.threads sets the number)"),
    ],
)
def test_threads_for_the_free_cores(four_cores, busy, chosen, line):
    said = []
    with threads.use_free_cores(Load(busy), said.append, "--train.threads"):  # pyright: ignore[reportArgumentType]
        assert torch.get_num_threads() == chosen
    assert torch.get_num_threads() == 4
    assert said == [line] * (line is not None)


def test_what_was_chosen_before_is_kept(four_cores):
    with threads.use_free_cores(Load(4.0), pytest.fail, "", threads=3):  # pyright: ignore[reportArgumentType]
        assert torch.get_num_threads() == 3


def test_no_more_threads_than_the_container_may_have(four_cores, monkeypatch):
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    assert threads.choose_threads(Load(1.0), "") == (2, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("number", "is_open"), [("2", False), (None, True)])
def test_torch_tells_whether_the_user_has_set_the_number(monkeypatch, number, is_open):
    if number:
        monkeypatch.setenv("OMP_NUM_THREADS", number)
    else:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = (
        "import torch\n"
        "from classifier.runtime import threads\n"
        "class Load:\n"
        "    def busy_cores(self): return 9.0\n"
        "threads.available_cores = lambda: 2\n"
        "torch.set_num_threads(2)\n"
        "print(threads.choose_threads(Load(), '')[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == (1 if is_open else 2)
