"""The verb: old classes are kept and a new one is learned, once more without the data, and killed and resumed."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from classifier.bundle import bundle as bundles
from classifier.data.assigned_splits import AssignedSplits
from tests.conftest import draw_photos

SETTINGS = ("--data.batch", "16", "--data.test", "0.3", "--data.validation", "0.2", "--train.epochs", "4")
FEW = ("--train.threads", "1", "--train.precision", "fp32", "--data.cache", "none")


def draw_class(folder: Path, colour: tuple[int, int, int], count: int = 40) -> None:
    """Draw images of this colour, with noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(count):
        image = np.array(colour) + rng.integers(-40, 40, (24, 24, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{n:03d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory, verb_in) -> Path:
    """A run on two classes, a folder of a third, and one of more images of the first."""
    home = tmp_path_factory.mktemp("update")
    draw_photos(home / "photos", {"red": 60, "green": 60})
    draw_class(home / "blue" / "blue", (40, 40, 200))
    assert verb_in(home, "train", "photos", *SETTINGS, *FEW, "--name", "base").code == 0
    return home


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "bundle" / "model.safetensors")


@pytest.mark.long
def test_a_new_class_is_learned_and_then_another_without_the_first_data(home, verb_in):
    done = verb_in(home, "update", "runs/base", "blue", "--name", "first", "--memory", "20")
    assert done.code == 0, done.err
    assert "new classes: blue" in done.out + done.err
    about = bundles.read(home / "runs" / "first")
    assert about.class_names == ("blue", "green", "red")
    document = json.loads((home / "runs" / "first" / "update.json").read_text())
    assert document["outcome"]["promoted"]
    assert {one["name"] for one in document["candidates"]} == {"replay", "memory-alone"}
    assert document["candidates"][0]["new"]["after"] > 0.9
    assert document["counts"]["old"]["train"] == 20
    result = json.loads((home / "runs" / "first" / "result.json").read_text())
    assert (result["kind"], result["promoted"], result["test_reads"]) == ("update", True, 1)
    page = (home / "runs" / "first" / "report.html").read_text()
    assert "on the memory alone" in page
    for name in ("evaluate", "calibrate"):
        assert verb_in(home, name, "runs/first").code == 0
    shutil.move(home / "runs" / "first", home / "moved")  # its images are with it
    assert verb_in(home, "evaluate", "moved", "--again").code == 0
    shutil.move(home / "moved", home / "runs" / "first")
    shutil.move(home / "photos", home / "gone")  # the memory is enough
    try:
        draw_class(home / "more" / "yellow", (200, 200, 40))
        done = verb_in(home, "update", "runs/first", "more", "--name", "second", "--memory", "20")
        assert done.code == 0, done.err
        assert bundles.read(home / "runs" / "second").class_names == ("blue", "green", "red", "yellow")
        counts = json.loads((home / "runs" / "second" / "update.json").read_text())["counts"]
        assert counts["old"]["train"] == 20
        first, second = (AssignedSplits.read(home / "runs" / name) for name in ("base", "second"))
        assert second.recall(first.digests_M, None).tolist() == first.splits_M.tolist()  # the first run's are known
    finally:
        shutil.move(home / "gone", home / "photos")


@pytest.mark.long
def test_a_killed_update_equals_an_unbroken_one(home, verb_in, started):
    words = ("runs/base", "blue", "--memory", "20", "--epochs", "12")
    assert verb_in(home, "update", *words, "--name", "whole").code == 0
    for number, step in enumerate(("replay/checkpoints/step-0*[1-9]", "memory-alone/checkpoints/step-*")):
        folder = home / "runs" / f"killed-{number}"
        process = started("update", *words, "--name", folder.name, cwd=home)
        deadline = time.monotonic() + 120
        while not any(folder.glob(f"steps/{step}/manifest.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = verb_in(home, "update", "--resume", folder)
        assert done.code == 0, done.err
        whole, killed = read_weights(home / "runs" / "whole"), read_weights(folder)
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[name], killed[name]) for name in whole)
        assert "is finished: start another update" in verb_in(home, "update", "--resume", folder).err


@pytest.mark.long
def test_a_model_that_is_no_better_is_not_promoted_until_it_is_allowed(home, verb_in):
    draw_photos(home / "same", {"red": 12, "green": 12}, seed=5)
    done = verb_in(home, "update", "runs/base", "same", "--name", "same", "--epochs", "1")
    assert done.code == 3, done.err
    assert "not promoted" in done.err
    assert not (home / "runs" / "same" / "bundle").exists()
    assert verb_in(home, "update", "--resume", "runs/same").code == 2
    assert verb_in(home, "update", "--resume", "runs/same", "--max-loss", "50").code == 3  # no gain is shown


@pytest.mark.long
def test_what_is_refused(home, verb_in):
    def refuse(*words: object) -> str:
        done = verb_in(home, "update", *words, "--name", "refused")
        assert done.code == 2, done.err
        assert not (home / "runs" / "refused").exists()
        return done.err

    assert "RUN or IMAGES is missing" in refuse("runs/base")
    assert "cannot be learned without images of the older ones" in refuse("runs/base", "blue", "--memory", "0")
    assert "keep at least one image of each" in refuse("runs/base", "blue", "--memory", "2")
    assert "cannot be shown on" in refuse("runs/base", "blue", "--max-loss", "0.1")
    assert "does not exist" in refuse("runs/base", "nowhere")
    assert "is not an update" in verb_in(home, "update", "--resume", "runs/base").err
    (home / "labels.csv").write_text("path,label\nblue/blue/000.png,a;b\nblue/blue/001.png,b;a\n")
    assert "multilabel" in refuse("runs/base", "labels.csv")
