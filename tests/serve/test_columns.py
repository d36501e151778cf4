"""The server answers images with columns beside them: in JSON, in forms, in tensors and on its page."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from classifier.bundle.predictor import Predictor
from classifier.export.folder import GateImages, export_bundle
from classifier.serve.registry import Source
from tests.devtools import open_tab
from tests.serve.conftest import Running, encode, start, stop
from tests.serve.test_app import form, validate
from tests.serve.test_page import open_page, read_cards, save
from tests.tables import NAMES, draw_rows, make_bundle, make_dataset

IMAGE, OTHER = encode(), encode(seed=1)
ROWS = draw_rows()[:2]
INFER = "/v2/models/waves/infer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    dataset = make_dataset()
    folder = make_bundle(tmp_path_factory.mktemp("served") / "bundle", dataset)
    export_bundle(folder, "onnx", GateImages.select(dataset))
    return folder


@pytest.fixture(scope="module")
def predictor(folder) -> Predictor:
    return Predictor(folder, engine="onnx")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def served(folder, bundle, kept) -> Iterator[Running]:
    running = start([Source("waves", folder), Source("plain", bundle)], has_maps=True, capture=kept)
    yield running
    stop(running)


def ask(server: Running, path: str = "/predict/waves", **document: Any) -> tuple[int, Any]:
    for name in ("image", "images"):
        value = document.get(name)
        if isinstance(value, bytes):
            document[name] = base64.b64encode(value).decode()
        elif value:
            document[name] = [one and base64.b64encode(one).decode() for one in value]
    status, answer, _ = server.ask(path, json.dumps(document).encode(), content_type="application/json")
    return status, answer


def check(answer: Any, predictor: Predictor, images: list[Any], rows: list[Any]) -> None:
    expected = predictor.predict(images, columns=rows)
    for row, prediction in zip(answer["predictions"], expected, strict=True):
        assert row["description"] == prediction.describe()
        assert row["probability"] == pytest.approx(prediction.probability, abs=1e-5)


def test_json_and_forms_have_columns_beside_the_images(served, predictor):
    images: list[Any] = [IMAGE, OTHER]
    body, kind = form(IMAGE, OTHER, columns=json.dumps(ROWS))
    for status, answer in (
        ask(served, images=images, columns=ROWS),
        served.ask("/predict/waves", body, content_type=kind)[:2],
    ):
        assert status == 200
        validate(served, "/predict", status, answer)
        check(answer, predictor, images, ROWS)
    check(ask(served, image=IMAGE, columns=ROWS[0])[1], predictor, [IMAGE], ROWS[:1])


def test_images_and_columns_may_be_missing(served, predictor):
    status, answer = ask(served, images=[IMAGE, None, OTHER], columns=[None, ROWS[0], {NAMES[0]: "4.5"}])
    assert status == 200
    check(answer, predictor, [IMAGE, None, OTHER], [None, ROWS[0], {NAMES[0]: 4.5}])
    check(ask(served, columns=ROWS)[1], predictor, [None, None], ROWS)
    check(served.ask("/predict/waves", IMAGE)[1], predictor, [IMAGE], [None])
    body, kind = form(columns=json.dumps(ROWS[0]))
    check(served.ask("/predict/waves", body, content_type=kind)[1], predictor, [None], ROWS[:1])


def test_what_cannot_be_used_is_named_and_stops_no_other(served, predictor):
    status, answer = ask(served, images=[IMAGE, OTHER], columns=[{"weigth": 3}, ROWS[1]])
    assert status == 200
    validate(served, "/predict", status, answer)
    refused, other = answer["predictions"]
    assert refused["error"].startswith("the model has no column weigth")
    assert "did you mean weight?" in refused["error"]
    check({"predictions": [other]}, predictor, [OTHER], ROWS[1:])
    assert ask(served, columns={"weight": "heavy"})[0] == 422


REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "too few rows": ({"images": [IMAGE, OTHER], "columns": [{}]}, 400, "there are 1 rows of columns for 2 images"),
    "no rows": ({"image": IMAGE, "columns": 3}, 400, "columns is an object of values"),
    "rows of lists": ({"image": IMAGE, "columns": [[1]]}, 400, "columns is an object of values"),
    "a value that is a list": ({"image": IMAGE, "columns": {"weight": [1]}}, 400, "a value of a column is a text"),
    "nothing at all": ({"columns": []}, 400, "there is no image"),
    "only null": ({"images": [None]}, 422, "there is neither an image nor a value of a column"),
    "an unknown column": ({"image": IMAGE, "columns": {"x": 1}}, 422, "the model has no column x"),
    "too many rows": ({"columns": [{}] * 65}, 413, "65 images are more than 64"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_columns_are_refused_in_a_sentence(served, case):
    document, expected, reason = REFUSALS[case]
    status, answer = ask(served, **document)
    assert status == expected
    validate(served, "/predict", status, answer)
    assert reason in (answer["error"] if "error" in answer else answer["predictions"][0]["error"])


def test_a_form_whose_columns_are_no_json_is_refused(served):
    body, kind = form(IMAGE, columns="weight=3")
    status, answer, _ = served.ask("/predict/waves", body, content_type=kind)
    assert (status, answer["error"][:21]) == (400, "columns is no JSON: s")


def test_a_model_of_images_alone_takes_no_columns(served):
    status, answer = ask(served, "/predict/plain", image=IMAGE, columns={"weight": 3})
    assert status == 422
    assert "the model takes images alone" in answer["predictions"][0]["error"]
    assert ask(served, "/predict/plain", image=IMAGE, columns={})[0] == 200
    status, answer = ask(served, "/predict/plain", images=[IMAGE, None])
    assert status == 200
    assert "there is no image" in answer["predictions"][1]["error"]


def test_models_say_which_columns_they_take(served, predictor):
    status, answer, _ = served.ask("/models")
    validate(served, "/models", status, answer)
    columns = {row["name"]: row["columns"] for row in answer["models"]}
    assert [(one["name"], one["kind"]) for one in columns["waves"]] == [
        (column.name, column.kind) for column in predictor.bundle.columns.columns
    ]
    assert set(columns["waves"][1]["values"]) == {"red", "green", "blue"}
    assert columns["plain"] == []
    inputs = served.ask("/v2/models/waves")[1]["inputs"]
    assert [(one["name"], one["datatype"]) for one in inputs[2:]] == [
        (f"column.{name}", "FP64" if name == "weight" else "BYTES") for name in NAMES
    ]


def tensor(name: str, datatype: str, data: list[Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data} | fields


def infer(server: Running, *inputs: dict[str, Any], binary: bytes = b"") -> tuple[int, Any]:
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "probabilities"}]}).encode()
    headers = {"inference_header_content_length": str(len(head))} if binary else {}
    status, answer, _ = server.ask(INFER, head + binary, **headers)
    return status, answer


def test_tensors_have_an_input_for_each_column(served, predictor):
    encoded = tensor("encoded", "BYTES", [base64.b64encode(IMAGE).decode(), ""])
    weights, colours = tensor("column.weight", "FP32", [3.5, None]), tensor(f"column.{NAMES[1]}", "BYTES", ["red", "x"])
    rows = [{"weight": 3.5, NAMES[1]: "red"}, {NAMES[1]: "x"}]
    status, answer = infer(served, encoded, weights, colours)
    assert status == 200
    expected_NK = predictor([IMAGE, None], rows)
    np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (2, 3)), expected_NK, atol=1e-5)
    status, answer = infer(served, colours, weights)
    np.testing.assert_allclose(
        np.reshape(answer["outputs"][0]["data"], (2, 3)), predictor([None, None], rows), atol=1e-5
    )


def test_binary_tensors_follow_each_other(served, predictor):
    parts = {
        "encoded": struct.pack("<I", len(IMAGE)) + IMAGE,
        "column.weight": np.array([np.pi], "<f8").tobytes(),
        f"column.{NAMES[1]}": struct.pack("<I", 5) + b"green",
    }
    kinds = ("BYTES", "FP64", "BYTES")
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "parameters": {"binary_data_size": len(part)}}
        for (name, part), kind in zip(parts.items(), kinds, strict=True)
    ]
    status, answer = infer(served, *inputs, binary=b"".join(parts.values()))
    assert status == 200
    expected_NK = predictor([IMAGE], [{"weight": float(np.pi), NAMES[1]: "green"}])
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected_NK[0], atol=1e-5)


BAD_TENSORS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "different numbers of rows": (
        [tensor("column.weight", "FP32", [1]), tensor("column.seen", "BYTES", ["", ""])],
        400,
    ),
    "an unknown type": ([tensor("column.weight", "FP16", [1])], 400),
    "another shape": ([tensor("column.weight", "FP32", [1], shape=[1, 2])], 400),
    "too few values": ([tensor("column.weight", "FP32", [1], shape=[2])], 400),
    "a value that is an object": ([tensor("column.weight", "FP32", [{}])], 400),
    "no data": ([{"name": "column.weight", "datatype": "FP32", "shape": [1]}], 400),
    "wrong bytes": ([tensor("column.weight", "FP32", [1], parameters={"binary_data_size": 4})], 400),
    "an unknown column": ([tensor("column.x", "FP32", [1])], 422),
    "text in place of a number": ([tensor("column.weight", "BYTES", ["heavy"])], 422),
    "nothing": ([tensor("column.weight", "FP32", [None])], 422),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_of_columns_are_refused_in_a_sentence(served, case):
    inputs, expected = BAD_TENSORS[case]
    status, answer = infer(served, *inputs)
    assert status == expected
    assert len(answer["error"]) > 10


def test_heatmaps_are_those_of_the_image_with_its_columns(served):
    status, answer = ask(served, images=[IMAGE, None], columns=ROWS, maps=True)
    assert status == 200
    validate(served, "/predict", status, answer)
    first, second = answer["predictions"]
    assert base64.b64decode(first["heatmap"]).startswith(b"\xff\xd8")
    assert second["heatmap"] is None


def test_columns_are_kept_with_the_answers(folder, tmp_path):
    server = start([Source("waves", folder)], capture=tmp_path)
    ask(server, images=[IMAGE, None], columns=ROWS)
    server.ask("/predict/waves", IMAGE)
    stop(server)
    assert server.app.capture
    server.app.capture.close()
    [path] = tmp_path.glob("waves/*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert [row["columns"] and json.loads(row["columns"]) for row in rows] == [*ROWS, None]
    assert rows[0]["image_id"] == rows[2]["image_id"] != rows[1]["image_id"]
    assert [row["novelty"] is None for row in rows] == [False, True, False]


@pytest.mark.long
def test_the_page_has_a_field_for_each_column(served, predictor, tmp_path, tmp_path_factory):
    with open_tab(tmp_path_factory.mktemp("browser")) as tab:
        open_page(tab, served)
        fields = "[...document.querySelectorAll('#fields input')]"
        assert tab.evaluate(f"{fields}.map(one => [one.name, one.type])") == [
            [name, kind] for name, kind in zip(NAMES, ("number", "text", "date", "text"), strict=True)
        ]
        assert tab.evaluate("[...document.querySelectorAll('datalist option')].length") == 3
        tab.drop(save(tmp_path, content=IMAGE))
        [before] = read_cards(tab)
        values = json.dumps({"weight": "9.5", NAMES[1]: "blue"})
        tab.evaluate(f"{fields}.forEach(one => one.value = {values}[one.name] ?? '')")
        tab.evaluate("document.getElementById('columns').dispatchEvent(new Event('change'))")
        [after] = read_cards(tab)
        row = {"weight": 9.5, NAMES[1]: "blue"}
        for text, columns in ((before, None), (after, row)):
            [expected] = predictor.predict([IMAGE], columns=[columns])
            assert f"{expected.probability:.1%}" in text
        tab.evaluate("document.getElementById('imageless').click()")
        alone, _ = read_cards(tab)
        [expected] = predictor.predict([None], columns=[row])
        assert "Without an image" in alone
        assert f"{expected.probability:.1%}" in alone
        for width in (390, 1280):
            tab.emulate(width)
            assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.complaints() == []
        tab.evaluate("(model => { model.value = 'plain'; model.onchange() })(document.getElementById('model'))")
        assert tab.evaluate("document.getElementById('columns').hidden")
