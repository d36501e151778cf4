"""`jobs/train.py` as a user runs it: its run folder, resuming, interrupts and kills."""

import json
import shutil
import signal
import subprocess
import time

import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file

FAST = ("--model.name", "cnn", "--train.epochs", "2", "--data.batch", "128")
KEYS = {
    *("format_version", "kind", "status", "seconds", "config", "dataset", "validation", "test"),
    *("images_per_second", "input_wait", "epochs", "parameters", "versions", "device"),
}


def weights(folder):
    return load_file(folder / "bundle" / "model.safetensors")


def assert_same_weights(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


@pytest.fixture(scope="module")
def short(verb_in, tmp_path_factory):
    """One short training, shared by several tests."""
    folder = tmp_path_factory.mktemp("short")
    done = verb_in(folder, "train", *FAST, "--name", "mine", "--out", "there")
    assert done.code == 0, done.err
    assert done.folder == folder / "there" / "mine"
    return done


def test_result_json_and_the_run_folder(short):
    done = short
    result = done.result
    assert result.keys() >= KEYS
    assert (result["kind"], result["status"], result["epochs"], result["test"]) == ("train", "finished", 2, None)
    assert set(result["validation"]) == {"accuracy", "macro_f1", "loss", "count"}
    assert result["dataset"]["counts"] == {"train": 1304, "validation": 162, "test": 331}
    assert result["config"]["model"]["name"] == "cnn"
    assert result["config"]["train"]["precision"] in ("fp32", "bf16")
    assert result["images_per_second"] > 0
    history = [json.loads(line) for line in (done.folder / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [1, 2]
    best = max(history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert result["validation"]["accuracy"] == best["validation_accuracy"]
    assert yaml.safe_load((done.folder / "experiment.yaml").read_text())["model"]["name"] == "cnn"
    for name in ("run.log", "split.json", "curves.png", "bundle/bundle.json", "tensorboard", "checkpoints"):
        assert (done.folder / name).exists(), name
    assert "epoch 2/2" in (done.folder / "run.log").read_text()


def test_runs_are_numbered_by_data_set_whatever_the_verb(verb, tmp_path):
    assert verb("train", *FAST, "--train.epochs", "1").folder == tmp_path / "runs" / "digits-1"
    assert verb("show", "digits", "--images", "2", "--views", "1").folder == tmp_path / "runs" / "digits-2"
    assert verb("train", *FAST, "--train.epochs", "1").folder == tmp_path / "runs" / "digits-3"


def test_a_recipe_then_a_file_then_flags(verb, tmp_path):
    (tmp_path / "e.yaml").write_text("model.name: cnn\ntrain: {epochs: 3}\noptimizer.lr: 1e-3\n")
    done = verb("train", "--recipe", "digits", "--experiment", "e.yaml", "--train.epochs", "1", "--workers.gpus", "1")
    config = done.result["config"]
    assert (config["model"]["name"], config["train"]["epochs"], config["optimizer"]["lr"]) == ("cnn", 1, 1e-3)
    assert config["loss"]["smoothing"] == 0.1  # the recipe's
    assert ("--entrypoint-num-gpus" in done.out) == (not torch.cuda.is_available())


def test_dry_run_leaves_nothing_behind(verb, tmp_path):
    done = verb("train", "--dry_run")
    assert done.code == 0
    assert "one step: loss" in done.out
    assert not (tmp_path / "runs").exists()


def test_train_evaluate_and_predict_on_a_folder_of_images(verb, photos, tmp_path):
    done = verb("train", "--data.path", "photos", "--data.batch", "16", "--train.epochs", "8", "--name", "p")
    assert done.code == 0, done.err
    assert done.result["dataset"]["class_names"] == ["blue", "green", "red"]
    first = verb("evaluate", "runs/p")
    assert first.code == 0, first.err
    assert first.folder == done.folder  # it makes no run folder of its own
    result = first.result
    assert (result["kind"], result["test_reads"]) == ("train", 1)
    assert result["test"]["accuracy"] > 0.9
    assert (tmp_path / "runs" / "p" / "predictions.parquet").exists()
    again = verb("evaluate", "runs/p")
    assert (again.result["test"], again.result["test_reads"]) == (result["test"], 1)
    assert verb("evaluate", "runs/p/bundle", "--again").result["test_reads"] == 2
    asked = verb("evaluate", "runs/p", "--name", "tested")
    assert asked.folder == tmp_path / "runs" / "tested"
    assert (asked.result["kind"], asked.result["test"]) == ("evaluate", result["test"])
    shutil.copytree(done.folder / "bundle", tmp_path / "model")
    alone = verb("evaluate", "model", "--again", "--data", "photos")  # no run to save its scores in
    assert alone.folder == tmp_path / "runs" / "photos-1"
    assert {"result.json", "predictions.parquet", "confusion.png"} <= {path.name for path in alone.folder.iterdir()}
    (photos / "red" / "none.png").write_bytes(b"")
    asked = verb("predict", "runs/p", "photos/red/000.png", "photos/green", "photos/red/none.png")
    assert asked.code == 2
    assert "photos/red/000.png: red" in asked.out
    assert "none.png" in asked.err
    lines = [line for line in asked.out.splitlines() if line.startswith("photos/green")]
    assert sum(": green" in line for line in lines) > 0.8 * len(lines) == 32


def test_evaluate_refuses_a_changed_data_set(verb, photos):
    assert verb("train", "--data.path", "photos", "--data.batch", "16", "--train.epochs", "1", "--name", "p").code == 0
    (photos / "red" / "000.png").unlink()
    refused = verb("evaluate", "runs/p")
    assert refused.code == 2
    assert "other images" in refused.err


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def test_killed_and_resumed_run_ends_with_the_same_weights(verb, started, tmp_path):
    settings = (
        "--model.name",
        "cnn",
        "--train.epochs",
        "20",
        "--optimizer.ema",
        "0.9",
        "--checkpoint.minutes",
        "0.005",
    )
    clean = verb("train", *settings, "--name", "clean")
    hurt = tmp_path / "runs" / "hurt"
    process = started("train", *settings, "--name", "hurt")
    history = hurt / "history.jsonl"
    wait_for(lambda: history.exists() and history.read_text().count("\n") >= 4)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 4 <= history.read_text().count("\n") < 20
    assert not (hurt / "result.json").exists()
    resumed = verb("train", "--resume", "runs/hurt")
    assert resumed.code == 0, resumed.err
    assert_same_weights(clean.folder, hurt)
    for name in ("validation", "epochs"):
        assert resumed.result[name] == clean.result[name]
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 21))


def test_ctrl_c_saves_and_a_running_run_cannot_be_resumed(verb, started, tmp_path):
    process = started("train", "--train.epochs", "500", "--name", "long", stdout=subprocess.PIPE)
    folder = tmp_path / "runs" / "long"
    wait_for(lambda: (folder / "history.jsonl").exists())
    second = verb("train", "--resume", "runs/long")
    assert (second.code, second.out) == (2, "")
    assert f"in use by process {process.pid}" in second.err
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines()[-1] == "runs/long"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "stopped"
    assert result["validation"]["accuracy"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--optimizer.lr", "1"), "optimizer.lr cannot be changed"),
        (("--train.epochs", "1"), "train.epochs 1 is fewer"),
        (("--name", "b"), "--name cannot be used"),
        (("--data.path", "nowhere"), "give their new path by --data.path"),
    ],
)
def test_resume_accepts_only_workers_and_more_epochs(here, short, words, says):
    refused = here("train", "--resume", str(short.folder), *words)
    assert refused.code == 2
    assert says in refused.err


def test_finished_run_can_be_extended(verb, short, tmp_path):
    shutil.copytree(short.folder, tmp_path / "a")
    longer = verb("train", "--resume", "a", "--train.epochs", "3")
    assert longer.code == 0, longer.err
    assert longer.result["epochs"] == 3


def test_non_finite_loss_is_reported(verb, tmp_path):
    done = verb("train", *FAST, "--optimizer.name", "sgd", "--optimizer.lr", "1e18", "--name", "a")
    assert done.code == 1
    assert "not finite since step" in done.err
    assert json.loads((tmp_path / "runs" / "a" / "result.json").read_text())["status"] == "failed"


def test_few_images_without_flags_get_a_probe_and_its_experiment_repeats_it_without_choosing_again(verb_in, tmp_path):
    for n in range(17):
        file = tmp_path / "shapes" / "abc"[n % 3] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (80, 80), "white")
        draw = ImageDraw.Draw(image)
        box = [5 + n, 10, 50 + n, 55]
        (draw.ellipse, draw.rectangle, draw.line)[n % 3](box, "black", width=1 + n % 4)
        image.save(file)
    first = verb_in(tmp_path, "train", "shapes", "--name", "first")
    assert first.code == 0, first.err
    assert "recipe auto: 12 images of 3 classes, 80 pixels: a linear probe of timm/tf_efficientnet_lite0" in first.out
    settings = yaml.safe_load((first.folder / "experiment.yaml").read_text())
    assert (settings["model"]["probe"], settings["data"]["size"], settings["train"]["epochs"]) == (True, 224, 1)
    assert "validated by 5 folds of the training images" in first.out
    assert "%), by 5 folds of the training images" in first.out
    again = verb_in(tmp_path, "train", "--experiment", str(first.folder / "experiment.yaml"), "--name", "again")
    assert again.code == 0, again.err
    assert "recipe auto" not in again.out
    bundle = json.loads((first.folder / "bundle" / "bundle.json").read_text())
    assert bundle["scores"]["validation"]["count"] == bundle["calibration"]["images"] == 13, "by folds"
    assert_same_weights(first.folder, again.folder)
