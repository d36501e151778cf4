"""Answers on disk: undone, cut off, written by a process that is killed, and one process at a time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from classifier.errors import ConfigError, DataError
from classifier.label.answers import Answer, AnswerLog, read_all, read_answers

WRITER = """
import sys
from pathlib import Path
from classifier.label.answers import Answer, AnswerLog
with AnswerLog(Path(sys.argv[1]), "me") as log:
    for n in range(10**6):
        log.add(Answer(f"{n}.png", ("cat",)))
        print(n, flush=True)
"""


def test_answers_come_back_without_what_was_undone(tmp_path: Path):
    with AnswerLog(tmp_path, "anna") as log:
        log.add(Answer("a.png", ("cat",)))
        log.add(Answer("b.png", None))
        log.add(Answer("a.png", ("dog",)))
        log.add(Answer("c\udce9\n.png", ("cat", "dog")))
        assert log.undo() == Answer("c\udce9\n.png", ("cat", "dog"))
        log.add(Answer("d\udce9\n.png", ()))
    with AnswerLog(tmp_path, "anna") as log:
        assert [*log.standing.values()] == [
            Answer("b.png", None),
            Answer("a.png", ("dog",)),
            Answer("d\udce9\n.png", ()),
        ]
        assert log.undo() == Answer("d\udce9\n.png", ())
        assert log.undo() == Answer("a.png", ("dog",))
        assert log.standing["a.png"].labels == ("cat",)
        log.undo()
        log.undo()
        assert log.undo() is None


def test_a_killed_process_loses_no_answer(tmp_path: Path):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    confirmed = [int(writer.stdout.readline()) for _ in range(20)][-1]
    os.kill(writer.pid, signal.SIGKILL)
    confirmed = max([confirmed, *(int(line) for line in writer.stdout.read().split())])
    writer.wait()
    writer.stdout.close()
    with AnswerLog(tmp_path, "me") as log:
        assert len(log.standing) in (confirmed + 1, confirmed + 2)
        assert [*log.standing] == [f"{n}.png" for n in range(len(log.standing))]


def test_a_line_that_was_cut_off_is_dropped_and_a_damaged_one_is_named(tmp_path: Path):
    with AnswerLog(tmp_path, "me") as log:
        log.add(Answer("a.png", ("cat",)))
        log.add(Answer("b.png", ("dog",)))
    path = tmp_path / "answers-me.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert read_answers(path) == [Answer("a.png", ("cat",))]
    with AnswerLog(tmp_path, "me") as log:
        log.add(Answer("c.png", None))
    assert [one.image for one in read_answers(path)] == ["a.png", "c.png"]
    for bad in ("{}", "7", '{"image": 3, "labels": []}', '{"image": "a", "labels": "cat"}', "[" * 99999):
        path.write_bytes(whole + bad.encode() + b"\n")
        with pytest.raises(DataError, match="line 3 is no answer"):
            read_answers(path)
    path.write_text('{"undo": true}\n')
    with pytest.raises(DataError, match="line 1"):
        read_answers(path)


def test_one_process_an_annotator_and_names_that_stay_in_the_folder(tmp_path: Path):
    with AnswerLog(tmp_path, "anna"), AnswerLog(tmp_path, "ben") as ben:
        ben.add(Answer("a.png", ("cat",)))
        with pytest.raises(DataError, match="labels as anna, too"), AnswerLog(tmp_path, "anna"):
            pass
    assert read_all(tmp_path) == {"anna": [], "ben": [Answer("a.png", ("cat",))]}
    for name in ("", "../x", "a/b", ".hidden", "a b", "x" * 41):
        with pytest.raises(ConfigError, match="--annotator"):
            AnswerLog(tmp_path, name)


def test_an_answer_that_cannot_be_written_does_not_count(tmp_path: Path, monkeypatch):
    with AnswerLog(tmp_path, "me") as log:
        log.add(Answer("a.png", ("cat",)))

        def fail(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match="No space"):
                log.add(Answer("b.png", ("dog",)))
        log.add(Answer("c.png", ("dog",)))
        assert [*log.standing] == ["a.png", "c.png"]
    lines = [json.loads(line) for line in (tmp_path / "answers-me.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == ["a.png", "c.png"]
