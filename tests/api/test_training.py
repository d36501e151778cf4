"""Training, testing and predicting from Python."""

import doctest
import importlib
import json
import shutil
from typing import Any

import pytest
from PIL import Image

import classifier
from classifier.api import training
from classifier.training import head_probe
from tests.conftest import draw_photos

SETTINGS: dict[str, Any] = {"train.epochs": 3, "data.batch": 16}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("data") / "photos", {"red": 40, "green": 40, "blue": 40})


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    return classifier.train(photos, out=tmp_path_factory.mktemp("runs"), progress=False, **SETTINGS)


@pytest.fixture
def run(trained, tmp_path):
    """A run of its own for each test."""
    return classifier.Run(shutil.copytree(trained.folder, tmp_path / "runs" / "a"))


@pytest.mark.parametrize(
    "module", ["classifier", "classifier.api.run", "classifier.api.training", "classifier.bundle.predictor"]
)
def test_examples_of_docstrings(module, run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = photos / "red" / "000.png"
    names = {"classifier": classifier, "photos": photos, "run": run, "folder": run.folder, "image": image}
    names["model"] = classifier.load(run)
    results = [
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
        for example in doctest.DocTestFinder().find(importlib.import_module(module), extraglobs=names)
    ]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def test_a_run_and_its_model(run, photos):
    assert run.status == "finished"
    assert run.folder.name == "a"
    assert run.experiment.train.epochs == 3
    history = run.history
    assert history["epoch"].to_pylist() == [1, 2, 3]
    model = classifier.load(run)
    image = photos / "green" / "001.png"
    with Image.open(image) as opened:
        by_path, by_bytes, by_image = model.predict([image, image.read_bytes(), opened])
    assert (by_path.probabilities == by_bytes.probabilities).all()
    assert (by_path.probabilities == by_image.probabilities).all()
    assert (by_path.path, by_bytes.path) == (image, None)
    assert "green" in repr(by_path)


def test_the_test_split_is_read_once(run):
    test = run.test()
    assert 0.5 < test.accuracy <= 1
    assert repr(test).startswith("<test accuracy")
    assert json.loads((run.folder / "result.json").read_text())["test_reads"] == 1
    assert run.test().predictions is None
    assert run.result["test_reads"] == 1
    run.test(again=True)
    assert run.result["test_reads"] == 2


def test_one_image_a_class_trains_and_says_that_nothing_is_tested(tmp_path, capsys, monkeypatch):
    """Predictions are those of the nearest image: the only thing that is known of a class."""
    photos = draw_photos(tmp_path / "photos", {"red": 1, "green": 1, "blue": 1})
    run = classifier.train(photos, out=tmp_path)
    assert (
        "note: Each of the 3 classes has only one image, which trains: nothing is left to test"
        in capsys.readouterr().out
    )
    assert (run.status, run.result["validation"], run.result["test"]) == ("finished", None, None)
    assert "Not tested: every class has only one image." in (run.folder / "report.html").read_text()
    again = draw_photos(tmp_path / "again", {"red": 3, "green": 3, "blue": 3}, seed=1)
    model = classifier.load(run)
    files = sorted(again.rglob("*.png"))
    right = [best.class_name == file.parent.name for best, file in zip(model.predict(files), files, strict=True)]
    assert sum(right) >= 7
    with pytest.raises(classifier.ClassifierError, match=r"test images \(every class has only one image\): add"):
        run.test()
    draw_photos(photos, {"red": 12, "green": 12})  # beside the class of one image
    extract, passes = head_probe.extract_shared, []
    monkeypatch.setattr(head_probe, "extract_shared", lambda *words: passes.append(1) or extract(*words))
    mixed = classifier.train(photos, out=tmp_path, progress=False)
    assert len(passes) == 1, "the calibration takes the features of the training"
    assert "The class 'blue' has only one image, which trains: it is not tested." in mixed.result["dataset"]["findings"]
    assert mixed.result["validation"]["count"] == mixed.result["dataset"]["counts"]["train"] - 1
    rows = {row["name"]: row for row in mixed.test().scores["per_class"]}
    assert (rows["blue"]["support"], rows["blue"]["roc_auc"]) == (0, None)


def test_a_notebook_shows_the_report_in_a_frame(run):
    shown = run.report._repr_html_()
    assert shown.startswith("<iframe sandbox srcdoc=")
    assert "<script" not in shown


def test_weights_equal_those_of_the_command(trained, photos, verb):
    """The same settings, so the same bits: one code trains both."""
    words = [word for name, value in SETTINGS.items() for word in (f"--{name}", value)]
    done = verb("train", photos, *words)
    assert done.code == 0, done.err
    weights = [folder / "bundle" / "model.safetensors" for folder in (trained.folder, done.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert {*trained.result} == {*done.result}


def test_an_interrupted_training_is_stopped_and_resumes_to_the_same_weights(trained, photos, tmp_path, monkeypatch):
    def interrupt(run, *args, **hooks):
        for epoch in record(run, *args, **hooks):
            yield epoch
            raise KeyboardInterrupt

    record = training.record_training
    monkeypatch.setattr(training, "record_training", interrupt)
    monkeypatch.chdir(photos.parent)
    with pytest.raises(KeyboardInterrupt):
        classifier.train(photos.name, out=tmp_path, name="cut", progress=False, **SETTINGS)
    cut = classifier.Run(tmp_path / "cut")
    assert cut.status == "stopped"
    assert cut.result["validation"]["count"] > 0
    monkeypatch.setattr(training, "record_training", record)
    monkeypatch.chdir(tmp_path)  # from where the relative path of the data leads nowhere
    shutil.copytree(photos, tmp_path / "other" / "photos")
    shutil.rmtree(next((tmp_path / "other" / "photos").iterdir()))
    with pytest.raises(classifier.ClassifierError, match="other images, labels or splits"):
        classifier.resume(cut, progress=False, **{"data.path": "other/photos"})
    whole = classifier.resume(cut, progress=False)
    assert whole.status == "finished"
    weights = [folder / "bundle" / "model.safetensors" for folder in (trained.folder, whole.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "says"),
    [
        ({}, {"optimizer.lrr": 1}, classifier.ConfigError, "did you mean optimizer.lr"),
        ({}, {"optimizer.lr": -1}, classifier.ConfigError, "above 0"),
        ({}, {"workers.count": 2}, classifier.ConfigError, "command classifier train"),
        ({"recipe": "photo"}, {}, classifier.ConfigError, "did you mean photos"),
        ({"path": "phots/"}, {}, classifier.DataError, "phots"),
        ({"name": "../away"}, {}, classifier.RunError, "letters"),
    ],
)
def test_mistakes_are_exceptions_and_leave_no_folder(photos, tmp_path, arguments, settings, error, says):
    arguments = {"path": photos, "out": tmp_path / "runs"} | arguments
    with pytest.raises(error, match=says):
        classifier.train(**arguments, progress=False, **settings)
    assert not list((tmp_path / "runs").glob("*"))


def test_progress_goes_to_stdout_and_run_log(photos, tmp_path, capsys):
    run = classifier.train(photos, out=tmp_path, name="shown", **SETTINGS)
    lines = (run.folder / "run.log").read_text().splitlines()
    out = capsys.readouterr().out
    assert all(line in out for line in lines)
    assert sum(line.startswith("epoch") for line in lines) == 3


def test_an_experiment_of_ones_own(photos, tmp_path):
    experiment = classifier.recipe("photos").override_all({"train.epochs": 1, "model.name": "cnn"})
    run = classifier.train(photos, experiment=experiment, out=tmp_path, progress=False)
    assert (run.experiment.model.name, run.experiment.train.epochs) == ("cnn", 1)
    settings = {"model": {"name": "cnn"}, "train.epochs": 1}
    assert classifier.train(photos, experiment=settings, out=tmp_path, progress=False).experiment.model.name == "cnn"


def test_fit_is_a_loop_of_ones_own(photos):
    experiment = classifier.recipe("photos").override_all({"data.path": str(photos), "train.epochs": 2})
    dataset = classifier.load_data(experiment.data)
    epochs = list(classifier.fit(classifier.resolve(experiment, dataset), dataset))
    assert [epoch.number for epoch in epochs] == [1, 2]
