"""`predict`: lists of paths on standard input, rows for programs, and a run folder only on request."""

import contextlib
import csv
import io
import json
import os
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from classifier import data, models
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from tests.conftest import command_of

ODD_NAMES = (
    b"a,b.png",
    b'"quoted" it\'s.png',
    b"new\nline.png",
    b"\xff\xfe.png",
    "фото ü.png".encode(),
    b" space .png",
)


@pytest.fixture
def run(tmp_path, photos) -> Path:
    """A run folder with the bundle of an untrained model."""
    dataset = data.load(DataConfig(path=str(photos)))
    experiment = Experiment().override_all({"model.name": "cnn", "train.precision": "fp32", "data.path": str(photos)})
    torch.manual_seed(0)
    model = models.build(experiment.model, classes=3, channels=dataset.channels, size=dataset.size)
    about = bundle.Bundle.from_training(experiment, dataset, scores={}, epoch=1)
    bundle.save(about, model, tmp_path / "model" / "bundle")
    return tmp_path / "model"


@pytest.fixture
def odd_files(tmp_path, photos) -> list[bytes]:
    """Images whose names are hard on text formats."""
    content = (photos / "red" / "000.png").read_bytes()
    paths = [os.path.join(b"odd", name) for name in ODD_NAMES]
    (tmp_path / "odd").mkdir()
    for path in paths:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), path))).write_bytes(content)
    return paths


@pytest.fixture
def stdin(monkeypatch):
    """Set the bytes on standard input, for a verb in this process."""
    return lambda content: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def predict(cwd: Path, *words: object, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command_of("predict", *words), cwd=cwd, input=content, capture_output=True, check=False)


def test_nothing_is_left_behind_unless_asked_for(run, here, tmp_path):
    done = here("predict", str(run), "photos/red")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 40
    assert done.out.splitlines()[-1].startswith("photos/red/039.png: ")
    assert not (tmp_path / "runs").exists()
    named = here("predict", str(run), "photos/red", "--name", "mine")
    assert named.folder == Path("runs/mine")
    elsewhere = here("predict", str(run), "photos/red", "--out", "there", "--format", "csv")
    assert elsewhere.err.splitlines()[-1] == "there/photos-1"
    for folder in ("runs/mine", "there/photos-1"):
        assert pq.read_table(tmp_path / folder / "predictions.parquet").num_rows == 40
        assert json.loads((tmp_path / folder / "result.json").read_text())["predicted"] == 40


def test_heatmaps_make_a_run_folder(run, here, tmp_path):
    done = here("predict", str(run), "photos/red/000.png", "photos/red/001.png", "--maps", "grad_cam")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-2:] == ["heatmaps (grad_cam): runs/photos-1/maps", "runs/photos-1"]
    assert sorted(path.name for path in (tmp_path / "runs/photos-1/maps").iterdir()) == ["000-000.jpg", "001-001.jpg"]


def test_paths_are_read_from_standard_input_in_their_place(run, here, stdin):
    stdin(b"photos/blue/001.png\r\n\nphotos/blue/002.png")
    done = here("predict", str(run), "photos/red/000.png", "-", "photos/red/003.png")
    assert done.code == 0, done.err
    assert [line.partition(":")[0] for line in done.out.splitlines()] == [
        *("photos/red/000.png", "photos/blue/001.png", "photos/blue/002.png", "photos/red/003.png")
    ]


def test_a_missing_path_in_the_list_does_not_stop_the_others(run, here, stdin):
    stdin(b"photos/blue/001.png\nabsent.png\nphotos\nphotos/blue/002.png\n")
    done = here("predict", str(run), "-", "--format", "jsonl")
    assert done.code == 2
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["path"] for row in rows] == ["photos/blue/001.png", "absent.png", "photos", "photos/blue/002.png"]
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert "No such file" in rows[1]["error"]


@pytest.mark.parametrize(
    ("content", "words", "code", "message"),
    [
        (b"", [], 0, "standard input has listed no images"),
        (b"photos/red/000.png\0photos/red/001.png\0", [], 2, "use --null"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", [], 2, "/dev/stdin instead of -"),
        (b"absent.png\n", [], 2, "none of the 1 images could be predicted"),
        (b"", ["-"], 2, "give - once"),
        (b"", ["absent.png"], 2, "absent.png does not exist"),
        (b"", ["--top", "0"], 2, "top"),
    ],
)
def test_bad_lists_are_answered_in_one_sentence(run, here, stdin, tmp_path, content, words, code, message):
    stdin(content)
    done = here("predict", str(run), "-", *words, "--name", "mine" if code else "empty")
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "runs" / "mine").exists()


def test_csv_keeps_every_file_name(run, odd_files, tmp_path):
    (tmp_path / "odd" / "broken.png").write_bytes(b"no image")
    paths = [*odd_files[:3], b"odd/broken.png", *odd_files[3:]]
    done = predict(tmp_path, run, "-", "--null", "--format", "csv", "--top", 2, content=b"\0".join(paths))
    assert done.returncode == 2
    assert b"odd/broken.png cannot be used as an image" in done.stderr
    text = done.stdout.decode(errors="surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [os.fsencode(row["path"]) for row in rows] == odd_files
    assert list(rows[0]) == [
        *("path", "class_name", "probability", "decision", "prediction_set", "is_out_of_distribution"),
        *("class_name_2", "probability_2"),
    ]
    for row in rows:
        assert row["class_name"] in json.loads(row["prediction_set"])
        assert 1 >= float(row["probability"]) >= float(row["probability_2"]) > 0
        assert row["is_out_of_distribution"] in ("true", "false")


def test_json_lines_keep_every_file_name(run, odd_files, tmp_path):
    paths = b"\0".join(odd_files)
    done = predict(tmp_path, run, "-", "--null", "--format", "jsonl", "--top", 2, "--name", "saved", content=paths)
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
    assert [os.fsencode(row["path"]) for row in rows] == odd_files
    table = pq.read_table(tmp_path / "runs" / "saved" / "predictions.parquet").to_pylist()
    for row, saved in zip(rows, table, strict=True):
        assert (row["class_name"], row["probability"]) == (row["top"][0]["class_name"], row["top"][0]["probability"])
        assert len(row["top"]) == 2
        assert row["class_name"] == saved["predicted_name"]
        assert row["probability"] == pytest.approx(max(saved["probabilities"]), rel=1e-5)
        assert (row["decision"], row["prediction_set"]) == (saved["taken"], saved["likely"])
        assert row["is_out_of_distribution"] == saved["is_unlike"]


def test_text_shows_odd_names_with_escapes(run, odd_files, tmp_path):
    done = predict(tmp_path, run, "-", "--null", content=b"\0".join([*odd_files, b"odd/\x1b[31m.png"]))
    assert done.returncode == 2
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(odd_files)
    assert lines[2].startswith(r"odd/new\nline.png: ")
    assert lines[3].startswith(r"odd/\udcff\udcfe.png: ")
    assert lines[4].startswith("odd/фото ü.png: ")
    assert b"\x1b" not in done.stderr


def test_standard_input_can_be_the_image_itself(run, photos, tmp_path):
    done = predict(tmp_path, run, "/dev/stdin", "--format", "jsonl", content=(photos / "red" / "000.png").read_bytes())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "/dev/stdin"


@pytest.mark.parametrize("kind", ["text", "csv", "jsonl"])
def test_a_terminal_shows_the_rows(run, tmp_path, kind):
    ours, its = os.openpty()
    words = command_of("predict", run, "photos/red/000.png", "--format", kind)
    with subprocess.Popen(words, cwd=tmp_path, stdout=its, stderr=subprocess.PIPE) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while block := os.read(ours, 1 << 16):
                shown += block
        os.close(ours)
        assert process.stderr is not None
        assert process.wait() == 0, process.stderr.read()
    assert shown.count(b"photos/red/000.png") == 1


def test_rows_appear_while_the_list_goes_on(run, tmp_path):
    words = command_of("predict", run, "-", "--format", "csv")
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"photos/red/000.png\n" * 2000)  # several batches
        process.stdin.flush()
        began = time.monotonic()
        lines = [process.stdout.readline() for _ in range(200)]
        assert time.monotonic() - began < 100
        assert lines[-1].startswith(b"photos/red/000.png,")
        assert process.poll() is None
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 2000 + 1 - 200
