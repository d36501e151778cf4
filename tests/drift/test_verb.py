"""`drift` from end to end: the reference of a training, images and answers, exit codes, the page."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.config.experiment import Experiment
from classifier.errors import RunError
from classifier.inference.reference import MAX_IMAGES

SETTINGS = ("--recipe", "digits", "--train.epochs", "12", "--train.threads", "1", "--data.test", "0.3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, verb_in) -> Path:
    """A folder with runs/digits-1, and images that it has not seen: same/ and inverted/."""
    folder = tmp_path_factory.mktemp("drift")
    done = verb_in(folder, "train", "digits", *SETTINGS)
    assert done.code == 0, done.err
    settings = bundles.read(folder / "runs" / "digits-1").experiment
    images_NCHW = data.load(Experiment.from_dict(settings).data).test.images_NCHW[:200]
    for name, change in {"same": 0, "inverted": 255}.items():
        (folder / name).mkdir()
        for n, image_CHW in enumerate(images_NCHW.numpy()):
            pixels_HW = np.abs(change - image_CHW[0].astype(int)).astype(np.uint8)
            Image.fromarray(pixels_HW).save(folder / name / f"{n:03}.png")
    return folder


def test_a_training_keeps_its_reference(trained):
    run = trained / "runs" / "digits-1"
    reference, bundle = bundles.load_reference(run), bundles.read(run)
    assert reference is not None
    assert reference.source == "validation"
    assert len(reference) == min(MAX_IMAGES, bundle.dataset["counts"]["validation"])
    assert reference.labelled == sum(bundle.dataset["counts"][split] for split in ("train", "validation"))
    accuracy = (reference.outputs.argmax(1) == reference.targets.argmax(1)).mean()
    assert accuracy == pytest.approx(bundle.scores["validation"]["accuracy"])
    assert reference.arrays["statistics"].dtype == np.float16
    assert {"features", "ood_scores"} <= reference.arrays.keys()


def test_images_like_those_of_the_training_raise_no_alarm(trained, verb_in):
    done = verb_in(trained, "drift", "runs/digits-1", "same", "--name", "same")
    assert done.code == 0, done.err
    found = json.loads((trained / "runs" / "same" / "drift.json").read_text())
    assert not found["is_found"]
    assert found["images"] == 200
    assert sum(row["share"] for row in found["shares"]) == pytest.approx(1)
    accuracy = found["expected_accuracy"]
    assert accuracy["confidence"]["value"] == pytest.approx(accuracy["reference"], abs=0.05)
    assert "no drift found: 200 images" in done.out


def test_images_that_have_changed_raise_an_alarm_with_a_page(trained, verb_in):
    done = verb_in(trained, "drift", "runs/digits-1", "inverted", "--name", "inverted")
    assert done.code == 3, done.err
    found = json.loads((trained / "runs" / "inverted" / "drift.json").read_text())
    assert found["is_alarm"]
    assert found["p"] < 0.01
    assert {"features", "novelty"} <= {test["kind"] for test in found["tests"] if test["adjusted"] < 0.05}
    page = (trained / "runs" / "inverted" / "drift.html").read_text()
    assert page.count("data:image/jpeg") == len(found["drove"]) == 24
    assert "http" not in page.replace("http-equiv", "")


def test_a_small_drop_of_accuracy_raises_none_if_a_larger_one_is_asked_for(trained, verb_in):
    done = verb_in(trained, "drift", "runs/digits-1", "inverted", "--min_drop", "100")
    assert done.code == 0, done.err
    assert "no alarm: the expected accuracy falls by less than 100 points" in done.out


def test_answers_are_compared_without_the_training_images(trained, tmp_path, verb_in):
    words = ("--answers", str(tmp_path / "answers"), "--probabilities", "--features")
    assert verb_in(trained, "predict", "runs/digits-1", "inverted", *words).code == 0
    shutil.copytree(trained / "runs" / "digits-1" / "bundle", tmp_path / "bundle")
    done = verb_in(tmp_path, "drift", "bundle", "answers", "--name", "log")
    assert done.code == 3, done.err
    tests = json.loads((tmp_path / "runs" / "log" / "drift.json").read_text())["tests"]
    assert {test["kind"] for test in tests} == {"shares", "outputs", "features", "novelty"}


def test_a_bundle_without_a_reference_gets_one_from_the_data(trained, tmp_path, verb_in):
    shutil.copytree(trained / "runs" / "digits-1", tmp_path / "old")
    bundle = tmp_path / "old" / "bundle"
    document = json.loads((bundle / "bundle.json").read_text())
    del document["files"]["reference.safetensors"]
    (bundle / "bundle.json").write_text(json.dumps(document))
    (bundle / "reference.safetensors").unlink()
    done = verb_in(tmp_path, "drift", "old", str(trained / "same"))
    assert done.code == 0, done.err
    assert "the model holds no reference, which was computed from its validation images" in done.out + done.err
    shutil.move(bundle, tmp_path / "alone")
    done = verb_in(tmp_path, "drift", "alone", str(trained / "same"))
    assert done.code == 2
    assert "holds no reference for drift" in done.err
    assert "classifier calibrate" in done.err


@pytest.mark.parametrize("words", [("same", "--level", "1.5"), ("absent",), ("runs/digits-1/validation.parquet",)])
def test_user_errors_are_a_sentence(trained, verb_in, words):
    done = verb_in(trained, "drift", "runs/digits-1", *words)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err.startswith("drift: ")


def test_a_damaged_reference_is_refused(trained, tmp_path):
    shutil.copytree(trained / "runs" / "digits-1" / "bundle", tmp_path / "bundle")
    with (tmp_path / "bundle" / "reference.safetensors").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"x" * 8)
    with pytest.raises(RunError, match="was changed after it was saved"):
        bundles.load_reference(tmp_path / "bundle")
