"""The live part of a terminal: it goes on while the main thread is blocked, fits, and leaves nothing behind."""

import contextlib
import io
import os
import re
import subprocess
import termios
import time
from pathlib import Path

import pytest

from jobs.cli import display as module
from jobs.cli.display import Display, Phase, console, fold
from tests.conftest import command_of

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def screen_of(file: io.StringIO, width: int = 80):
    return console(file=file, force_terminal=True, width=width, height=24, soft_wrap=True)


def test_phase_counts_its_seconds_while_the_main_thread_is_blocked():
    file = io.StringIO()
    display = Display(screen_of(file))
    display.begin_phase("starting Ray")
    time.sleep(1.3)
    display.clear()
    assert "starting Ray  1 s" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")  # the line is erased


def test_time_left_and_seconds_survive_a_name_that_is_too_long():
    file = io.StringIO()
    screen = screen_of(file, width=40)
    screen.print(Phase("reading " + "folder/" * 20))
    screen.print(Phase("testing " + "folder/" * 20, seconds_left=61))
    for line, end in zip(file.getvalue().splitlines(), ("…  0 s", "…  about 1:01 left"), strict=True):
        assert CONTROL.sub("", line).rstrip().endswith(end)
        assert len(CONTROL.sub("", line).rstrip()) <= 40


def test_without_a_terminal_only_a_long_phase_is_named_once_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(module, "LONG_SECONDS", 0.2)
    display = Display()
    display.begin_phase("reading photos/")
    display.begin_phase("starting Ray")
    time.sleep(0.5)
    display.begin_phase("planning")
    display.clear()
    time.sleep(0.3)
    assert capsys.readouterr() == ("", "starting Ray ...\n")


def test_text_is_folded_between_words_and_a_path_stays_whole():
    screen, path = screen_of(io.StringIO(), width=30), "/very/long/" * 5
    lines = fold(f"a sentence that is a little too long: {path}", screen).split("\n")
    assert lines == ["a sentence that is a little", "  too long:", f"  {path}"]
    assert fold("  a setting    1 to 2", screen) == "  a setting    1 to 2"
    assert fold("a\nb \x1b[2J", screen) == "a\\nb \\x1b[2J"
    assert fold("x " * 100, console(file=io.StringIO())) == "x " * 100


def run_on_terminal(cwd: Path, *words: str) -> tuple[str, int]:
    """What a verb has written to a terminal of 80 x 24 by its end, and its exit code."""
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 80))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "PYTHONPATH")}
    process = subprocess.Popen(
        command_of(*words), cwd=cwd, stdout=writer, stderr=writer, env=environment | {"TERM": "xterm"}
    )
    os.close(writer)
    written = b""
    with open(reader, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # the other end is closed
        while True:
            written += terminal.read(65536)
    return written.decode(), process.wait()


@pytest.mark.long
def test_training_fits_into_80_columns_says_something_at_once_and_shows_the_time_left(tmp_path):
    text, code = run_on_terminal(tmp_path, "train", "--train.epochs", "3", "--name", "a")
    assert code == 0, text
    lines = [CONTROL.sub("", line) for line in re.split(r"[\r\n]+", text)]
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert "starting  0 s" in lines[0]
    assert any(re.search(r"epoch [123]/3  \S+ left", line) for line in lines)
    assert "runs/a" in lines
