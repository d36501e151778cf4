"""Exports of models of images and columns: an input for each column, and the same answers, whatever is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from classifier.bundle import bundle
from classifier.bundle.engine_choice import open_engine
from classifier.bundle.predictor import Predictor
from classifier.errors import RunError
from classifier.export.folder import GateImages, export_bundle
from tests.tables import NAMES, draw_rows, make_bundle, make_dataset


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def gate(dataset) -> GateImages:
    return GateImages.select(dataset)


@pytest.fixture(scope="module")
def exported(dataset, gate, tmp_path_factory) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("exported") / "bundle", dataset)
    export_bundle(folder, "onnx", gate)
    return folder


def test_the_gate_has_rows_without_columns_and_without_image(gate):
    assert len(gate.images_NCHW) == len(gate.ids) == len(gate.columns_NF) == 50 + 2 * 32
    assert gate.ids[50].endswith("(without its columns)")
    assert np.isnan(gate.columns_NF[50:82, 1:]).all()
    assert (gate.columns_NF[82:, 0] == 0).all()
    assert (gate.columns_NF[:82, 0] == 1).all()


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch_export"])
@pytest.mark.parametrize("answers", ["head", "trees", "average"])
def test_an_export_answers_as_its_model(dataset, gate, kind, answers, tmp_path):
    folder = make_bundle(tmp_path / "bundle", dataset, answers, has_flip=True)
    export = export_bundle(folder, kind, gate)
    assert export.document["parity"]["images"] == len(gate.ids)
    if kind == "torch_export":
        return
    images = [image.permute(1, 2, 0).numpy() for image in dataset.validation.images_NCHW[:12]]
    rows = [*draw_rows(10, seed=1), None, {NAMES[1]: "a new colour"}]
    images[3] = None
    by_torch, by_export = (Predictor(folder, engine=engine, device="cpu") for engine in ("torch", kind))
    np.testing.assert_allclose(by_export(images, rows), by_torch(images, rows), atol=1e-5)


def test_the_graph_has_a_named_input_for_each_column(exported, dataset):
    graph = onnx.load(exported / "onnx/model.onnx").graph
    found = {one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in graph.input}
    assert [*found] == ["images", "has_image", *(f"column.{name}" for name in NAMES)]
    assert [shape[1] for shape in found.values()] == [3, 1, *dataset.columns.widths]


def test_without_columns_an_export_says_what_the_model_says(exported, dataset):
    by_torch, by_export = (Predictor(exported, engine=engine, device="cpu") for engine in ("torch", "onnx"))
    images_NCHW = dataset.validation.images_NCHW[:5].numpy()
    expected, found = by_torch.judge(images_NCHW), by_export.judge(images_NCHW)
    np.testing.assert_allclose(found.probabilities_NK, expected.probabilities_NK, atol=1e-5)
    assert found.ood_scores_N is not None
    assert expected.ood_scores_N is not None
    np.testing.assert_allclose(found.ood_scores_N, expected.ood_scores_N, atol=0.05)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda columns: columns.reverse(), "columns differ in order from those in bundle.json"),
        (lambda columns: columns[0].update(mean=0.5), "columns differ from those in bundle.json"),
        (lambda columns: columns[0].update(name="height"), "columns differ from those in bundle.json"),
    ],
)
@pytest.mark.parametrize("where", ["bundle.json", "onnx/export.json"])
def test_columns_that_do_not_agree_are_refused(exported, tmp_path, change, reason, where):
    folder = shutil.copytree(exported, tmp_path / "bundle")
    document = json.loads((folder / where).read_text())
    change(document["columns"])
    (folder / where).write_text(json.dumps(document))
    with pytest.raises(RunError, match=reason):
        Predictor(folder, engine="onnx")


def test_a_swapped_order_in_both_documents_is_refused_by_the_graph(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "bundle")
    for where in ("bundle.json", "onnx/export.json"):
        document = json.loads((folder / where).read_text())
        document["columns"].reverse()
        (folder / where).write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"the graph takes other columns than export\.json says"):
        Predictor(folder, engine="onnx")


def test_another_encoding_is_refused(exported, monkeypatch):
    from classifier.data.columns import text_hashing

    monkeypatch.setattr(text_hashing, "NGRAM_LENGTHS", (2, 3))
    with pytest.raises(RunError, match="the columns of its sample are encoded in another way"):
        Predictor(exported, engine="onnx")


def test_a_sample_without_its_columns_is_corrupted(exported, tmp_path, monkeypatch):
    from safetensors.numpy import load_file, save_file

    from classifier.storage.atomic import file_sha256

    folder = shutil.copytree(exported, tmp_path / "bundle")
    sample = load_file(folder / "onnx/sample.safetensors")
    del sample["columns"]
    save_file(sample, folder / "onnx/sample.safetensors")
    document = json.loads((folder / "onnx/export.json").read_text())
    document["files"]["sample.safetensors"]["sha256"] = file_sha256(folder / "onnx/sample.safetensors")
    (folder / "onnx/export.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"sample\.safetensors is corrupted"):
        Predictor(folder, engine="onnx")


def test_a_new_folder_predicts_without_the_weights(dataset, gate, tmp_path):
    folder = make_bundle(tmp_path / "bundle", dataset)
    export_bundle(folder, "onnx", gate, tmp_path / "out")
    assert bundle.read(tmp_path / "out").columns == dataset.columns
    opened = open_engine(tmp_path / "out", "onnx", "cpu", 1, lambda: bundle.load(folder))
    answer = opened.engine.predict(gate.images_NCHW[:3], gate.columns_NF[:3])
    assert answer.probabilities_NK.shape == (3, 3)
