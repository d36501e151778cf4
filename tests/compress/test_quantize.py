"""A graph in int8 agrees with that in fp32, and is refused where it is no faster."""

import numpy as np
import onnx
import pytest

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import save
from classifier.bundle.onnx_engine import OnnxEngine
from classifier.bundle.predictor import Predictor
from classifier.compress import quantize as quantization
from classifier.compress import scheme_search
from classifier.compress.graph_engine import GraphEngine
from classifier.compress.graph_rewrites import soften
from classifier.compress.int8_export import export_int8
from classifier.compress.judge import Assessment, Loss, predict_split
from classifier.compress.quantize import SCHEMES, choose_images, prepare, quantize
from classifier.compress.scheme_search import find_scheme
from classifier.errors import RunError
from classifier.evaluation.served import predict_served
from classifier.export.folder import GateImages, export_bundle
from classifier.metrics.decisions import Calibration


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """A bundle with its export in fp32."""
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    loaded = trained.loaded
    save(loaded.bundle, loaded.model, folder, bundles.load_ood_detector(trained.folder))
    export_bundle(folder, "onnx", GateImages.select(trained.dataset))
    return folder


@pytest.fixture(scope="module")
def prepared(exported, tmp_path_factory):
    """Its graph, rewritten for int8, with the names of its layers."""
    path = tmp_path_factory.mktemp("graphs") / "prepared.onnx"
    return path, prepare(exported / "onnx" / "model.onnx", path)


def test_a_rewritten_graph_gives_the_same_probabilities(trained, exported, prepared):
    before, after = GraphEngine(exported / "onnx" / "model.onnx", 1), GraphEngine(prepared[0], 1)
    images_NCHW = choose_images(trained.dataset.validation.images_NCHW, 9)
    expected, found = before.predict(images_NCHW), after.predict(images_NCHW)
    assert np.abs(found.probabilities_NK - expected.probabilities_NK).max() < 1e-5
    assert {name: s.shape for name, s in found.statistics.items()} == {
        name: s.shape for name, s in expected.statistics.items()
    }
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(prepared[0]).graph.node)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_int8_agrees(trained, exported, prepared, tmp_path, scheme):
    quantize(prepared[0], tmp_path / "int8.onnx", choose_images(trained.dataset.train.images_NCHW), scheme)
    split = trained.dataset.validation
    expected_NK = predict_split(GraphEngine(exported / "onnx" / "model.onnx", 1), split)
    found_NK = predict_split(GraphEngine(tmp_path / "int8.onnx", 1), split)
    assert (found_NK.argmax(1) == expected_NK.argmax(1)).mean() > 0.95
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_probabilities_are_softened(trained, exported, tmp_path):
    soften(exported / "onnx" / "model.onnx", tmp_path / "soft.onnx", 2.0)
    images_NCHW = choose_images(trained.dataset.validation.images_NCHW, 9)
    before_NK = GraphEngine(exported / "onnx" / "model.onnx", 1).predict(images_NCHW).probabilities_NK
    after_NK = GraphEngine(tmp_path / "soft.onnx", 1).predict(images_NCHW).probabilities_NK
    expected_NK = np.sqrt(before_NK)
    assert np.abs(after_NK - expected_NK / expected_NK.sum(1, keepdims=True)).max() < 1e-5


def test_an_int8_export_is_calibrated_again_and_answers(trained, exported, prepared, tmp_path):
    graph = tmp_path / "int8.onnx"
    quantize(prepared[0], graph, choose_images(trained.dataset.train.images_NCHW), SCHEMES[0])
    loaded = trained.loaded
    save(loaded.bundle, loaded.model, tmp_path / "bundle", bundles.load_ood_detector(trained.folder))
    before = GraphEngine(exported / "onnx" / "model.onnx", 1)
    split = trained.dataset.validation
    judged = predict_split(GraphEngine(graph, 1), split), split.labels_N
    made = export_int8(tmp_path / "bundle", graph, before, trained.dataset, judged=judged, threads=1, targets={})
    assert made.document["precision"] == "int8"
    assert isinstance(made.calibration, Calibration)
    assert made.calibration.images == len(trained.dataset.validation)
    assert made.detector is not None
    confusion, served_NK = predict_served(
        tmp_path / "bundle", bundles.load(tmp_path / "bundle"), trained.dataset.validation
    )
    int8_NK = predict_split(OnnxEngine(made, 1), trained.dataset.validation)
    assert np.abs(served_NK.numpy() - int8_NK).max() < 1e-6
    assert confusion.scores()["count"] == len(trained.dataset.validation)
    predictor = Predictor(tmp_path / "bundle", device="cpu")
    images = [image.numpy().transpose(1, 2, 0) for image in trained.dataset.validation.images_NCHW[:12]]
    expected_NK = before.predict(choose_images(trained.dataset.validation.images_NCHW[:12])).probabilities_NK
    answers = predictor.predict(images)
    labels = [trained.dataset.class_names[k] for k in expected_NK.argmax(1)]
    assert np.mean([answer.class_name == label for answer, label in zip(answers, labels, strict=True)]) > 0.9


@pytest.mark.parametrize(("seconds", "is_refused"), [(2.0, True), (0.5, False)])
def test_what_is_no_faster_here_is_refused(trained, exported, tmp_path, monkeypatch, seconds, is_refused):
    monkeypatch.setattr(scheme_search, "measure_milliseconds", lambda *_: {"before": 1.0, "after": seconds})
    graph = exported / "onnx" / "model.onnx"
    inputs = (graph, tmp_path / "int8.onnx", GraphEngine(graph, 1), trained.dataset.train.images_NCHW)
    choose = {"threads": 1, "limit": 0.01, "judge": lambda *_: Assessment(Loss(0.0, 0.0, 0.0), np.zeros((0, 3)))}
    if is_refused:
        with pytest.raises(RunError, match="no faster than"):
            find_scheme(*inputs, **choose)
    else:
        assert find_scheme(*inputs, **choose)[0] in SCHEMES[:2]


def test_sensitive_layers_stay_in_float_where_all_lose_too_much(trained, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(scheme_search, "measure_milliseconds", lambda *_: {"before": 1.0, "after": 0.5})
    graph, losses = exported / "onnx" / "model.onnx", iter([0.1] * len(SCHEMES) + [0.0])
    scheme, _ = find_scheme(
        graph,
        tmp_path / "int8.onnx",
        GraphEngine(graph, 1),
        trained.dataset.train.images_NCHW,
        threads=1,
        limit=0.01,
        judge=lambda *_: Assessment(Loss(value := next(losses), value, value), np.zeros((0, 3))),
    )
    assert len(scheme.excluded) == 1


@pytest.mark.parametrize(
    ("flags", "is_needed"),
    [("fpu avx2 avx512f", True), ("avx2 avx512_vnni", False), ("avx2 avx_vnni", False), ("neon", False)],
)
def test_processors_without_vnni_get_a_reduced_range(flags, is_needed, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"model name: one\nflags\t\t: {flags}\nbugs: none\n")
    monkeypatch.setattr(quantization, "_CPU_FLAGS", tmp_path / "cpuinfo")
    assert quantization.needs_reduced_range() == is_needed
