"""`predict --answers`: killed and resumed, every image is answered once; on Ray the answers are the same."""

import json
import random
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from classifier import data, models
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from tests.conftest import Done, run_verb, start_verb


@pytest.fixture
def run(tmp_path, photos) -> Path:
    """A run folder with the bundle of an untrained model, beside its 120 images and a broken one."""
    dataset = data.load(DataConfig(path=str(photos)))
    experiment = Experiment().override_all({"model.name": "cnn", "train.precision": "fp32", "data.path": str(photos)})
    torch.manual_seed(0)
    model = models.build(experiment.model, classes=3, channels=dataset.channels, size=dataset.size)
    about = bundle.Bundle.from_training(experiment, dataset, scores={}, epoch=1)
    bundle.save(about, model, tmp_path / "model" / "bundle")
    (photos / "red" / "broken.png").write_bytes(b"no image")
    return tmp_path / "model"


def read_ids(folder: Path) -> list[str]:
    return pq.read_table(folder)["image_id"].to_pylist()


def test_answers_are_kept_and_extended(run, here, tmp_path):
    words = ("predict", "model", "photos", "--answers", "answers", "--part_size", "50")
    done = here(*words)
    assert done.code == 2
    assert done.out.splitlines()[0].startswith("121 images in 3 parts, 1 could not be read, ")
    assert done.out.splitlines()[-1] == "answers"
    ids = read_ids(tmp_path / "answers")
    assert len({*ids}) == len(ids) == 121
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "answers").glob("part-*")}
    assert "121 images in 3 parts, 121 of them earlier" in here(*words).out
    (tmp_path / "photos" / "red" / "broken.png").unlink()  # of the last part
    for name in ("000", "001"):
        (tmp_path / "photos" / "red" / f"zz{name}.png").write_bytes((tmp_path / "photos/red/000.png").read_bytes())
    done = here(*words)
    assert done.code == 0
    assert "122 images in 3 parts, 100 of them earlier" in done.out
    kept = [path.name for path, mtime in parts.items() if path.stat().st_mtime_ns == mtime]
    assert sorted(kept) == ["part-00000.parquet", "part-00001.parquet"]
    assert "photos/red/zz001.png" in read_ids(tmp_path / "answers")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--answers", "a", "--name", "mine"], "--name is of a run"),
        (["--answers", "a", "--maps", "grad_cam"], "--maps is of a run"),
        (["--answers", "a", "--out", "b"], "--out is of a run"),
        (["--answers", "a", "--format", "text"], "--format text is for the terminal"),
        (["--format", "parquet"], "--format parquet needs --answers"),
        (["--probabilities"], "--probabilities needs --answers"),
        (["--workers.count", "2"], "--workers.count needs --answers"),
        (["--answers", "photos/red"], "photos/red has files, but no answers"),
        (["--answers", "a", "--engine", "onnx"], "holds no export to onnx"),
    ],
)
def test_mistakes_are_told_before_any_work(run, here, tmp_path, words, message):
    done = here("predict", "model", "photos", *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "a").exists()


def test_answers_in_storage_are_those_in_a_folder(run, here, tmp_path, bucket):
    before, after = bucket
    for words in (("--answers", "answers"), ("--out", f"{before}/deep/answers{after}")):
        done = here("predict", "model", "photos", *words, "--format", "jsonl", "--part_size", "100")
        assert done.code == 2, done.err
    from classifier.answers.folders import open_folder

    folder = open_folder(f"{before}/deep/answers{after}")
    for name in ("part-00000.jsonl", "part-00001.jsonl"):
        assert folder.read(name) == (tmp_path / "answers" / name).read_bytes()


def parts_in(folder: Path) -> dict[str, tuple[int, int]]:
    """The parts that are finished, each with what changes if it is written again."""
    finished = [folder / f"part-{path.stem}.parquet" for path in folder.glob("_parts/*.json")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished}


def test_killed_twice_each_image_is_answered_once(run, tmp_path):
    generator = random.Random(time.time_ns())
    answers = tmp_path / "answers"
    words = ("predict", "model", "photos", "--answers", "answers", "--part_size", "2")
    finished: dict[str, tuple[int, int]] = {}
    for _ in range(2):
        process = start_verb(*words, cwd=tmp_path)
        goal = len(finished) + generator.randint(1, 15)
        while len(parts_in(answers)) < goal:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        process.wait()
        earlier, finished = finished, parts_in(answers)
        assert earlier.items() <= finished.items()
    assert len(finished) < 61, "it was not killed in time"
    done = run_verb(*words, cwd=tmp_path)
    assert done.code == 2, done.err
    assert finished.items() <= parts_in(answers).items()
    assert len(parts_in(answers)) == 61
    ids = read_ids(answers)
    assert len({*ids}) == len(ids) == 121
    assert not [*answers.rglob("*.part")]
    whole = run_verb(*words[:-3], "whole", *words[-2:], cwd=tmp_path)
    assert whole.code == 2
    for path in (tmp_path / "whole").glob("part-*"):
        assert path.read_bytes() == (answers / path.name).read_bytes()
    assert json.loads((answers / "_answers.json").read_text())["unreadable"] == 1


def test_workers_answer_as_one_process_does(run, tmp_path, joined):
    words = ("predict", "model", "photos", "--part_size", "25")
    assert run_verb(*words, "--answers", "here", cwd=tmp_path).code == 2
    workers = ("--workers.count", "2", "--workers.cpus", "0.5")
    done: Done = run_verb(*words, "--answers", "there", *workers, cwd=tmp_path)
    assert done.code == 2, done.err
    assert "121 images in 5 parts, 1 could not be read" in done.out
    for path in (tmp_path / "here").glob("part-*"):
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()
    (tmp_path / "there" / "part-00003.parquet").unlink()
    again = run_verb(*words, "--answers", "there", *workers, cwd=tmp_path)
    assert "121 images in 5 parts, 96 of them earlier" in again.out, again.err
    assert (tmp_path / "there" / "part-00003.parquet").exists()
