"""The verb: weights that a training takes, resumed bit for bit, from images with labels or without."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from classifier import models
from classifier.config.sections import AugmentConfig, DataConfig, ModelConfig
from classifier.errors import DataError
from classifier.pretraining.images import read_images
from classifier.pretraining.views import choose_augment
from jobs.pretrain import choose_optimizer

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = ("--model.name", "cnn", "--data.batch", "64", "--train.threads", "1", "--train.precision", "fp32")


def write_images(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(count):
        file = folder / ("deep" if n % 2 else "") / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)


@pytest.mark.long
@pytest.mark.parametrize("method", ["simclr", "byol", "dino"])
def test_a_killed_run_equals_an_unbroken_one(method, tmp_path, verb):
    words = ("digits", "--method", method, *SETTINGS, "--train.epochs", "5", "--checkpoint.steps", "5")
    assert verb("pretrain", *words, "--name", "whole").code == 0
    command = [sys.executable, ROOT / "jobs" / "pretrain.py", *words, "--name", "killed", "--out", tmp_path / "runs"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("killed/checkpoints/step-*/manifest.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs" / "killed" / "result.json").exists()
    done = verb("pretrain", "--resume", tmp_path / "runs" / "killed")
    assert done.code == 0, done.err
    whole, killed = (load_file(tmp_path / "runs" / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    histories = [
        [json.loads(line) for line in (tmp_path / "runs" / name / "history.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    keys = ("epoch", "step", "lr", "train_loss", "neighbours", "rank")
    assert [[row[key] for key in keys] for row in histories[0]] == [[row[key] for key in keys] for row in histories[1]]


@pytest.mark.long
def test_an_interrupted_run_says_how_to_go_on(tmp_path, started, verb):
    process = started("pretrain", "digits", *SETTINGS, "--train.epochs", "500", "--name", "long")
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs" / "long" / "history.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    result = json.loads((tmp_path / "runs" / "long" / "result.json").read_text())
    assert result["status"] == "stopped"
    assert "stopped; resume it" in (tmp_path / "runs" / "long" / "run.log").read_text()
    assert verb("train", "--resume", tmp_path / "runs" / "long").code == 2


@pytest.mark.long
def test_a_training_takes_the_weights(tmp_path, verb):
    done = verb("pretrain", "digits", *SETTINGS, "--train.epochs", "1", "--name", "first")
    assert done.code == 0, done.err
    assert "nearest neighbours" in done.out
    weights = tmp_path / "runs" / "first" / "weights.safetensors"
    assert "--model.name cnn --model.weights runs/first/weights.safetensors" in done.out
    built = models.build(ModelConfig(name="cnn", weights=str(weights)), classes=10, channels=1, size=8).state_dict()
    stored = load_file(weights)
    assert all(torch.equal(built[name], value) for name, value in stored.items())
    assert {name for name in built if name not in stored} == models.head_parameter_names(
        models.build(ModelConfig(name="cnn"), classes=10, channels=1, size=8)
    )
    result = json.loads((tmp_path / "runs" / "first" / "result.json").read_text())
    assert (result["kind"], result["status"]) == ("pretrain", "finished")
    assert result["pretraining"]["method"] == "simclr"
    assert 0 < result["pretraining"]["neighbours"] <= 1
    trained = verb("train", "digits", "--model.name", "cnn", "--model.weights", weights, "--train.epochs", "1")
    assert trained.code == 0, trained.err
    first = tmp_path / "runs" / "first"
    assert "is finished" in verb("pretrain", "--resume", first).err
    assert json.loads((first / "result.json").read_text()) == result
    assert "has weights without a classifier" in verb("evaluate", first).err
    assert "is a pretraining, which has no report" in verb("report", first).err
    (first / "result.json").unlink()  # as if it had been killed just before
    assert verb("pretrain", "--resume", first).code == 0
    again = json.loads((first / "result.json").read_text())
    assert again["pretraining"] == result["pretraining"]


@pytest.mark.long
def test_features_that_have_collapsed_are_told(tmp_path, verb):
    (tmp_path / "same").mkdir()
    for n in range(10):
        Image.new("RGB", (8, 8), (40, 90, 200)).save(tmp_path / "same" / f"{n}.png")
    done = verb("pretrain", "same", *SETTINGS, "--train.epochs", "1")
    assert done.code == 0, done.err
    assert "the features have collapsed to 1.0 dimensions" in done.err


def test_images_without_labels_are_read_at_any_depth(tmp_path):
    write_images(tmp_path / "incoming", 12)
    images = read_images(DataConfig(path=str(tmp_path / "incoming"), cache=None))
    assert images.images_NCHW.shape[:2] == (12, 3)
    assert images.labels_N is None
    assert any("without labels (" in finding for finding in images.findings)


def test_test_images_are_left_out():
    images = read_images(DataConfig(path="digits"))
    assert len(images.images_NCHW) == 1466
    assert "331 test images are left out." in images.findings


@pytest.mark.parametrize(
    ("method", "given", "lr", "decay"),
    [
        ("simclr", {}, 0.02, 0.0),
        ("byol", {}, 2e-3, 1e-3),
        ("byol", {"optimizer.name": "muon"}, 0.02, 0.0),
        ("simclr", {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1}, 2e-3, 0.1),
    ],
)
def test_the_optimizer_is_that_of_the_method_but_for_what_is_given(method, given, lr, decay):
    settings = choose_optimizer(method, given) | given
    assert (settings["optimizer.lr"], settings["optimizer.weight_decay"]) == (lr, decay)
    assert not choose_optimizer(method, given).keys() & given.keys()


def test_grey_images_are_cropped_less_and_keep_what_is_set():
    grey, colour = (choose_augment(AugmentConfig(), kind="photos", channels=n, size=28) for n in (1, 3))
    assert (grey.crop, colour.crop) == (0.6, 0.25)
    assert (grey.erase, colour.erase) == (1, 0.25)
    assert (grey.hue, colour.hue) == (0, 0.1)
    assert choose_augment(AugmentConfig(crop=0.4), kind="photos", channels=1, size=28).crop == 0.4
    assert choose_augment(AugmentConfig(policy="none"), kind="photos", channels=1, size=28).erase == 0


def test_few_images_and_none_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        read_images(DataConfig(path=str(tmp_path / "empty")))
    write_images(tmp_path / "few", 5)
    with pytest.raises(DataError, match="few has 5 images to learn from: give at least 8"):
        read_images(DataConfig(path=str(tmp_path / "few"), cache=None))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("digits", "--method", "moco"), "method is 'moco': it must be one of auto, simclr, byol, dino"),
        (("digits", "--loss.name", "focal"), "pretrain does not take this setting"),
        (("--resume", "nowhere"), "nowhere is not a run folder"),
        (("--resume", "nowhere", "--train.epochs", "9"), "keeps its settings"),
    ],
)
def test_mistakes_are_explained(words, says, verb):
    done = verb("pretrain", *words)
    assert done.code == 2
    assert says in done.err
