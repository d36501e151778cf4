"""Answers say what the Predictor says, in every format, and tell why an image has none."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from classifier import data, models
from classifier.answers.answering import answer_images
from classifier.answers.listing import ImageListing
from classifier.answers.rows import Columns, write_answers
from classifier.bundle import bundle
from classifier.bundle.predictor import Prediction, Predictor
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.inference.features import extract_features
from classifier.inference.out_of_distribution import fit_detector
from classifier.metrics.decisions import Calibration

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (root / name).mkdir()
        for n in range(24):
            pixels = generator.integers(0, 120, (24, 30, 3))
            pixels[..., 2 - k] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{n:02d}.png")
    return root


@pytest.fixture(scope="module")
def predictor(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """An untrained model that is unsure of some images, and calls some of them unlike the others."""
    dataset = data.load(DataConfig(path=str(photos), size=24, fit="pad"))
    experiment = Experiment().override_all({"model.name": "cnn", "train.precision": "fp32", "data.fit": "pad"})
    torch.manual_seed(0)
    model = models.build(experiment.model, classes=3, channels=dataset.channels, size=dataset.size)
    about = bundle.Bundle.from_training(experiment, dataset, scores={}, epoch=1)
    for head in models.head_modules(model).values():
        torch.nn.init.normal_(next(head.parameters()))  # it begins with zeros
    train_NCHW, held_out_NCHW = dataset.train.images_NCHW[:20], dataset.train.images_NCHW[20:]
    detector = fit_detector(model.eval(), about.scorer(torch.device("cpu")), train_NCHW, held_out_NCHW)
    folder = tmp_path_factory.mktemp("run") / "bundle"
    bundle.save(about, model, folder, detector)
    predictor = Predictor(folder)
    second_best = np.sort(predictor([*sorted((photos / "red").iterdir())]), axis=1)[:, 1]
    predictor.calibration = Calibration(images=9, set_threshold=float(np.median(second_best)))
    return predictor


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_answers_in_every_format_are_those_of_the_predictor(
    predictor: Predictor, photos: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "also\udcff.png").write_bytes(b"")
    Image.new("RGB", (24, 24)).save(tmp_path / "black.png")
    names = ("broken.png", "black.png", "also\udcff.png")
    words = [str(photos / "blue"), *(str(tmp_path / name) for name in names[:2]), str(photos / "red")]
    words.append(str(tmp_path / names[2]))
    monkeypatch.setattr(type(predictor.engine), "batch_size", 25)  # one batch ends with the broken image
    images, advanced = [*ImageListing(words)], []
    answers = answer_images(predictor, images, Columns(2, probabilities=True, features=True), advanced.append)
    assert advanced == [25, 25, 1]
    assert answers.errors.keys() == {24, 50}
    path = tmp_path / f"answers.{kind}"
    write_answers(answers, path, kind)
    rows = _read(path)
    assert [row["image_id"] for row in rows[:-1]] == [image.id for image in images[:-1]]
    assert rows[-1]["image_id"].endswith("also\\udcff.png")
    features_NF = extract_features(predictor.model, predictor.scorer, torch.from_numpy(_pixels(predictor, images)))
    ood_scores_N = predictor.judge(_pixels(predictor, images)).ood_scores_N
    assert ood_scores_N is not None
    expected = [*predictor.predict_named((image.id, image.file, None) for image in images)]
    read = 0
    for row, one in zip(rows, expected, strict=True):
        if not isinstance(one, Prediction):
            assert row["error"] in one.reason
            assert all(value is None for name, value in row.items() if name not in ("image_id", "error"))
            continue
        assert row["error"] is None
        assert (row["predicted_name"], row["predicted"]) == (one.class_name, CLASSES.index(one.class_name))
        assert row["probability"] == pytest.approx(one.probability, rel=1e-5)
        assert (row["taken"], tuple(row["likely"])) == (one.decision, one.prediction_set)
        assert row["is_unlike"] == one.is_out_of_distribution
        unsure = "not sure" if one.decision is None else "sure"
        assert row["verdict"] == ("unlike anything seen" if one.is_out_of_distribution else unsure)
        assert [entry["name"] for entry in row["top"]] == [name for name, _ in one.top[:2]]
        np.testing.assert_allclose([entry["probability"] for entry in row["top"]], [p for _, p in one.top[:2]], 1e-5)
        np.testing.assert_allclose(row["probabilities"], one.probabilities, 1e-5)
        np.testing.assert_allclose(row["features"], features_NF[read], 1e-4, 1e-5)
        np.testing.assert_allclose(row["novelty"], ood_scores_N[read], 1e-3, 1e-3)
        read += 1
    assert {row["verdict"] for row in rows} == {None, "sure", "not sure", "unlike anything seen"}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_images_that_are_all_broken_have_answers_of_the_same_columns(
    predictor: Predictor, photos: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = []
    for number, word in enumerate((photos / "red", tmp_path / "broken.png")):
        answers = answer_images(predictor, [*ImageListing([str(word)])], Columns(5, probabilities=True, features=True))
        paths.append(tmp_path / f"part-{number}.{kind}")
        write_answers(answers, paths[-1], kind)
    if kind == "parquet":
        assert pq.read_schema(paths[0]) == pq.read_schema(paths[1])
    assert _read(paths[0])[0].keys() == _read(paths[1])[0].keys()


def _pixels(predictor: Predictor, images: list) -> np.ndarray:
    decoded = predictor.images.decode_files([image.file for image in images])
    return np.stack([one for one in decoded if isinstance(one, np.ndarray)])


def _read(path: Path) -> list[dict]:
    """Rows of plain values, whatever the format."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [{name: _parse(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def _parse(name: str, text: str):
    is_text = name in ("image_id", "predicted_name", "taken", "verdict", "error")
    return None if text == "" else text if is_text else json.loads(text)
