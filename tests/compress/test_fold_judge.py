"""A linear probe validated by folds is judged by them, in the arithmetic in which it is served."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from classifier import data, models
from classifier.bundle import bundle as bundles
from classifier.bundle.engine import Answer
from classifier.compress.fold_judge import FoldJudge, FoldNetwork
from classifier.compress.quantize import SCHEMES, prepare
from classifier.config.experiment import Experiment
from classifier.evaluation.calibrate import calibrate_bundle, calibrate_saved_bundle
from classifier.export.folder import GateImages, export_bundle
from classifier.inference.features import capture_features
from classifier.inference.logistic_regression import FoldHead, Head
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training, save_inputs
from classifier.training.resolve import resolve
from tests.conftest import draw_photos


class NoEngine:
    """The answers of folds are not those of the model itself."""

    batch_size, description = 1, "none"

    def predict(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Answer:
        raise AssertionError(images_NCHW.shape)


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A run with a linear probe on random features of 60 images, all of which train, and its data set."""
    root = tmp_path_factory.mktemp("probe")
    photos = draw_photos(root / "photos", dict.fromkeys(("red", "green", "blue"), 20))
    settings = {"data.path": str(photos), "data.validation": 0.0, "data.test": 0.0, "data.batch": 16}
    settings |= {"data.cache": None, "train.epochs": 1, "train.keep": "last", "train.precision": "fp32"}
    settings |= {"model.name": "cnn", "model.probe": True, "model.freeze": "statistics"}
    experiment = Experiment().override_all(settings)
    dataset = data.load(experiment.data)
    model = models.build(experiment.model, classes=3, channels=3, size=dataset.size, weights=False)
    torch.save(model.state_dict(), root / "w.pth")
    experiment = resolve(experiment.override("model.weights", str(root / "w.pth")), dataset)
    run = RunFolder.create(root, "run")
    save_inputs(run, experiment, dataset)
    for _ in record_training(run, experiment, dataset):
        pass
    run.close()
    calibrate_saved_bundle(run.folder, dataset, run.folder, device="cpu")
    return run.folder, dataset


def test_the_heads_of_the_folds_answer_for_what_they_have_not_seen(probe, tmp_path):
    folder, dataset = probe
    judge = FoldJudge(lambda _: bundles.find(folder), "original", dataset, tmp_path, 1)
    expected_NK = calibrate_bundle(bundles.load(folder, torch.device("cpu")), dataset)[1].numpy()
    found_NK = judge.predict("original", NoEngine(), None)
    assert np.abs(found_NK - expected_NK).max() < 1e-4
    int8_NK = judge.predict("original", NoEngine(), SCHEMES[0])
    assert 0 < np.abs(int8_NK - expected_NK).max() < 0.3
    assert (int8_NK.argmax(1) == expected_NK.argmax(1)).mean() > 0.9


def test_the_heads_of_ordered_grades_are_those_of_the_folds():
    torch.manual_seed(0)
    shape = {"classes": 4, "channels": 3, "size": 16, "weights": False, "task": "ordinal"}
    model = models.build(Experiment().override("model.name", "cnn").model, **shape).eval()
    heads = [Head(torch.randn(1, 128), torch.randn(1), torch.randn(2)) for _ in range(3)]
    images_NCHW = torch.rand(5, 3, 16, 16)
    with torch.no_grad(), capture_features(model) as features:
        model(images_NCHW)
        expected_NFK = torch.stack([head(features[0]) for head in heads], 1)
        found_LK = FoldNetwork(model, [FoldHead(torch.arange(0), head) for head in heads])(images_NCHW)
    torch.testing.assert_close(found_LK.unflatten(0, (5, 3)), expected_NFK)


def test_layers_are_in_the_places_that_they_have_in_the_graph_of_the_model(probe, tmp_path):
    folder, dataset = probe
    judge = FoldJudge(lambda _: bundles.find(folder), "original", dataset, tmp_path, 1)
    judge.predict("original", NoEngine(), None)
    export_bundle(folder, "onnx", GateImages.select(dataset))
    own = list_layers(bundles.find(folder) / "onnx" / "model.onnx", tmp_path)
    folds = list_layers(tmp_path / "original-folds.onnx", tmp_path)
    assert own[:-1] == folds[:-1]
    assert (own[-1][1], folds[-1][1]) == ([3, 128], [15, 128])


def list_layers(graph: Path, folder: Path) -> list[tuple[str, list[int]]]:
    """The kinds of the layers of a prepared graph, and the shapes of their weights."""
    prepare(graph, folder / "prepared.onnx")
    prepared = onnx.load(folder / "prepared.onnx").graph
    shapes = {array.name: list(array.dims) for array in prepared.initializer}
    layers = [node for node in prepared.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return [(node.op_type, shapes[node.input[1]]) for node in layers]
