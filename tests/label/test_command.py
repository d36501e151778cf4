"""`label` as a process: from nothing, killed and started again, with a model, and on labels that are wrong."""

import csv
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.label.conftest import CLASSES, true_label, write_images

ROOT = Path(__file__).resolve().parents[2]


class Command:
    """A running command, and requests to its page."""

    def __init__(self, folder: Path, *words: object) -> None:
        command = [sys.executable, str(ROOT / "jobs" / "label.py"), *map(str, words)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=folder)
        assert self.process.stdout
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = found[0]
                return
        raise AssertionError(self.process.communicate()[1])

    def ask(self, path: str, sent: Any = None) -> Any:
        body = None if sent is None else json.dumps(sent).encode()
        request = urllib.request.Request(f"{self.url}/{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert number == signal.SIGKILL or self.process.returncode == 0, err
        return "".join(self.lines) + out + err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    running: list[Command] = []

    def run(*words: object) -> Command:
        running.append(Command(tmp_path, *words))
        return running[-1]

    yield run
    for command in running:
        command.process.kill()
        command.process.communicate()


def read_labels(manifest: Path) -> dict[str, str]:
    with manifest.open(newline="") as file:
        return {row["path"]: row["label"] for row in csv.DictReader(file)}


@pytest.mark.long
def test_from_nothing_killed_started_again_trained_and_by_the_model(tmp_path: Path, start, verb):
    write_images(tmp_path / "incoming", 36)
    (tmp_path / "incoming" / "broken.png").write_bytes(b"nonsense")
    first = start("incoming", "--count", 15)
    items = first.ask("state")["items"]
    assert len(items) == 15
    for item in items[:7]:
        first.ask("answer", {"key": item["key"], "labels": [true_label(item["name"])]})
    first.end(signal.SIGKILL)
    again = start("incoming", "--count", 15)
    state = again.ask("state")
    assert [item["key"] for item in state["items"]] == [item["key"] for item in items]
    assert state["answered"] == 7
    for item in state["items"][7:]:
        state = again.ask("answer", {"key": item["key"], "labels": [true_label(item["name"])]})
    assert state["classes"] == sorted(CLASSES, key=state["classes"].index)
    text = again.end()
    assert "1 image cannot be read" in text
    assert "15 images labelled by me" in text
    manifest = tmp_path / "incoming-labels.csv"
    assert all(true_label(name) == label for name, label in read_labels(manifest).items())
    done = verb("train", manifest, "--model.name", "cnn", "--train.epochs", "2", "--name", "first")
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "first"
    third = start(run, "incoming", "--count", 5)
    state = third.ask("state")
    assert len(state["items"]) == 5
    assert not {item["key"] for item in state["items"]} & {item["key"] for item in items}
    assert all(item["guess"][0] in CLASSES for item in state["items"])
    third.end()


@pytest.mark.long
def test_wrong_labels_are_kept_or_changed(tmp_path: Path, start, verb):
    for name in CLASSES:
        write_images(tmp_path / "all", 60)
        (tmp_path / "photos" / name).mkdir(parents=True)
        for file in sorted((tmp_path / "all").glob(f"*{name}.png")):
            file.rename(tmp_path / "photos" / name / file.name)
    wrong = tmp_path / "photos" / "green" / "000-blue.png"
    (tmp_path / "photos" / "blue" / "000-blue.png").rename(wrong)
    words = ("--model.name", "timm/tf_efficientnet_lite0", "--model.weights", "imagenet", "--name", "first")
    done = verb("train", tmp_path / "photos", *words)
    assert done.code == 0, done.err
    command = start("--errors", tmp_path / "runs" / "first")
    state = command.ask("state")
    assert state["kind"] == "errors"
    [item] = [one for one in state["items"] if one["name"].endswith("green/000-blue.png")]
    assert (item["label"], item["guess"]) == (["green"], ["blue"])
    command.ask("answer", {"key": item["key"], "labels": ["blue"]})
    command.end()
    labels = read_labels(tmp_path / "photos-corrected.csv")
    assert len(labels) == 60
    assert labels.pop("photos/green/000-blue.png") == "blue"
    assert all(true_label(name) == label for name, label in labels.items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a folder of images"),
        (["a", "b", "c"], "give a folder of images"),
        (["absent"], "absent is not a folder"),
        (["empty"], "empty contains no images"),
        (["images", "--count", "0"], "count"),
        (["images", "--annotator", "../x"], "--annotator '../x'"),
        (["images", "--manifest", "absent/x.csv"], "there is no folder"),
        (["images", "--manifest", "x.parquet"], "ends with .csv"),
        (["absent", "images"], "absent"),
        (["--errors", "absent"], "absent"),
        (["--errors", "absent", "images"], "leave images out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_a_sentence(words: list[str], said: str, tmp_path: Path, verb):
    write_images(tmp_path / "images", 3)
    (tmp_path / "empty").mkdir()
    done = verb("label", *words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert said in done.err
