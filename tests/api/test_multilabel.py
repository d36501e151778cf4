"""Several labels an image, from a manifest to answers: what Python and the verbs do with them."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

import classifier
from tests.shapes import CLASSES, draw_shapes

IMAGES = 320
FAST = {"model.name": "cnn", "train.epochs": 8, "data.batch": 32, "optimizer.name": "muon", "optimizer.lr": 0.01}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Images of shapes, and labels.csv with lists of their names; some are empty."""
    folder = tmp_path_factory.mktemp("shapes")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels"))
        for n, (image_CHW, target_K) in enumerate(zip(*draw_shapes(IMAGES), strict=True)):
            Image.fromarray(image_CHW[0]).save(folder / f"{n:03d}.png")
            names = [name for name, is_on in zip(CLASSES, target_K, strict=True) if is_on]
            writer.writerow((f"{n:03d}.png", json.dumps(names)))
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory) -> classifier.Run:
    return classifier.train(manifest, out=tmp_path_factory.mktemp("runs"), name="shapes", progress=False, **FAST)


def test_a_run_of_several_labels_is_tested_and_answers(run: classifier.Run, manifest: Path) -> None:
    test = run.test()
    assert test.scores["map"] > 0.6
    assert 0 < test.accuracy == test.scores["subset_accuracy"] <= 1
    result = json.loads((run.folder / "result.json").read_text())
    assert result["test"]["map"] == test.scores["map"]
    assert result["config"]["train"]["metric"] == "map"
    assert "validation_map" in run.history.column_names
    model = classifier.load(run)
    paths = sorted(manifest.parent.glob("*.png"))[:40]
    assert {len(one.labels or ()) for one in model.predict(paths)} >= {0, 1, 2}
    assert (run.folder / "report.html").is_file()


def test_few_images_of_several_labels_get_the_default_recipe(manifest: Path, tmp_path: Path) -> None:
    few = manifest.with_name("few.csv")
    few.write_text("".join(manifest.read_text().splitlines(keepends=True)[:91]))
    run = classifier.train(few, out=tmp_path, name="few", progress=False)
    result = json.loads((run.folder / "result.json").read_text())
    assert result["config"]["model"]["probe"]
    assert result["validation"]["map"] > 0.4


def test_verbs_know_several_labels(run: classifier.Run, manifest: Path, verb, tmp_path: Path) -> None:
    image = manifest.parent / "001.png"
    predicted = verb("predict", run.folder, image, "--format", "csv")
    [row] = csv.DictReader(predicted.out.splitlines())
    assert set(json.loads(row["labels"])) <= set(CLASSES)
    assert verb("export", run.folder).code == 0
    said = verb("predict", run.folder, image, "--format", "jsonl").out  # by the export
    assert json.loads(said)["labels"] == json.loads(row["labels"])
    small = verb("compress", run.folder, "--steps", "int8", "distill", "--max-loss", "20", "--name", "small")
    assert "distill: a teacher shows one class an image" in small.err + small.out
    assert (small.folder / "bundle" / "onnx").is_dir()
    refused = verb("robust", run.folder)
    assert refused.code == 2
    assert "robust knows one class an image" in refused.err


def test_a_search_ranks_trials_by_map(manifest: Path, verb) -> None:
    words = [f"--{name}={value}" for name, value in (FAST | {"train.epochs": 2}).items()]
    found = verb("tune", manifest, *words, "--search.trials=2", "--search.vary", "optimizer.lr=0.003,0.01")
    assert found.code == 0, found.err
    assert found.result["objective"] == ["map"]
    assert found.result["selection"]["map"] >= 0
    assert (found.folder / "search.html").is_file()
