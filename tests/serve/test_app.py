"""The server over HTTP: every form of a request, its bounds, and who may ask."""

import base64
import io
import json
import socket
import threading
import time

import jsonschema
import numpy as np
import pytest
from PIL import Image

from classifier.bundle.predictor import Predictor
from classifier.serve.bounds import Bounds
from classifier.serve.guard import Guard
from classifier.serve.keys import Keys, add_key
from classifier.serve.registry import Source
from tests.serve.conftest import Running, encode, start, stop

IMAGE = encode()
PIXELS = np.random.default_rng(1).integers(0, 256, (3, 3, 24, 24), dtype=np.uint8)


def form(*contents: bytes, **fields: str) -> tuple[bytes, str]:
    parts = [f'--cut\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = b'--cut\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    parts += [head + content + b"\r\n" for content in contents]
    return b"".join(parts) + b"--cut--\r\n", "multipart/form-data; boundary=cut"


def as_json(*contents: bytes, **fields: object) -> bytes:
    return json.dumps({"images": [base64.b64encode(one).decode() for one in contents]} | fields).encode()


def validate(server: Running, path: str, status: int, answer: object) -> None:
    """Check an answer against the OpenAPI document."""
    document = server.ask("/openapi.json")[1]
    [operation] = [one for name, one in document["paths"][path].items() if name in ("get", "post")]
    content = operation["responses"][str(status)]["content"]["application/json"]
    jsonschema.Draft202012Validator(content["schema"] | {"components": document["components"]}).validate(answer)


def test_plain_requests_are_answered_as_predict_does(server: Running, bundle):
    second = encode(40, "JPEG", seed=1)
    expected = Predictor(bundle).predict([IMAGE, second], k=2)
    body, kind = form(IMAGE, second, top="2")
    for status, answer, headers in (
        server.ask("/predict/waves?top=2&version=1", as_json(IMAGE, second), content_type="application/json"),
        server.ask("/predict", as_json(IMAGE, second, top=2), content_type="application/json"),
        server.ask("/predict", body, content_type=kind),
    ):
        assert (status, answer["model"], answer["version"]) == (200, "waves", "1")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["access-control-allow-origin"] is None
        validate(server, "/predict", status, answer)
        for row, prediction in zip(answer["predictions"], expected, strict=True):
            assert row["description"] == prediction.describe()
            assert [one["class_name"] for one in row["top"]] == [name for name, _ in prediction.top]
            assert row["probability"] == pytest.approx(prediction.probability, abs=1e-5)
    [row] = server.ask("/predict/second", IMAGE)[1]["predictions"]
    assert row["class_name"] == expected[0].class_name


def test_an_unreadable_image_does_not_stop_the_others(server: Running):
    status, answer, _ = server.ask("/predict", as_json(b"no image", IMAGE), content_type="application/json")
    assert status == 200
    assert "its format is unknown" in answer["predictions"][0]["error"]
    assert "class_name" in answer["predictions"][1]
    validate(server, "/predict", status, answer)
    status, answer, _ = server.ask("/predict", IMAGE[:50])
    assert status == 422
    validate(server, "/predict", status, answer)


def tensor(**changes: object) -> bytes:
    own = {"name": "images", "datatype": "UINT8", "shape": [3, 3, 24, 24], "data": PIXELS.ravel().tolist()}
    return json.dumps({"inputs": [own | changes]}).encode()


INFER = "/v2/models/waves/infer"
BOMB = encode(64) + b"\0" * 100
MALFORMED = {
    "no image": ("/predict", b"", {}, 400),
    "an unknown model": ("/predict/none", IMAGE, {}, 404),
    "an unknown version": (f"{INFER[:-6]}/versions/9/infer", tensor(), {}, 404),
    "an unknown address": ("/admin", b"", {}, 404),
    "a wrong method": ("/predict", None, {}, 405),
    "top is no number": ("/predict?top=x", IMAGE, {}, 400),
    "top is too large": ("/predict?top=100000", IMAGE, {}, 400),
    "an unknown option": ("/predict?tops=1", IMAGE, {}, 400),
    "maps are off": ("/predict?maps=true", IMAGE, {}, 400),
    "JSON is cut": ("/predict", b'{"images": [', {"content_type": "application/json"}, 400),
    "JSON is deep": ("/predict", b"[" * 50_000, {"content_type": "application/json"}, 400),
    "JSON has too many values": (INFER, b"[" + b"0," * 2_000_001, {}, 413),
    "JSON is a list": ("/predict", b"[]", {"content_type": "application/json"}, 400),
    "no base64": ("/predict", b'{"images": ["?"]}', {"content_type": "application/json"}, 400),
    "no text": ("/predict", b'{"images": [7]}', {"content_type": "application/json"}, 400),
    "a form is cut": ("/predict", form(IMAGE)[0][:-30], {"content_type": form()[1]}, 400),
    "a form has no boundary": ("/predict", form(IMAGE)[0], {"content_type": "multipart/form-data"}, 400),
    "a form of another kind": ("/predict", b"a=b", {"content_type": "application/x-www-form-urlencoded"}, 415),
    "compressed": ("/predict", IMAGE, {"content_encoding": "gzip"}, 415),
    "too many images": ("/predict", as_json(*[b"x"] * 65), {"content_type": "application/json"}, 413),
    "too many files": ("/predict", form(*[b"x"] * 65)[0], {"content_type": form()[1]}, 413),
    "no inputs": (INFER, b"{}", {}, 400),
    "an unknown input": (INFER, tensor(name="input"), {}, 400),
    "another type": (INFER, tensor(datatype="FP32"), {}, 400),
    "another size": (INFER, tensor(shape=[9, 3, 8, 24]), {}, 400),
    "a wrong count": (INFER, tensor(shape=[4, 3, 24, 24]), {}, 400),
    "a negative size": (INFER, tensor(shape=[-3, 3, 24, 24]), {}, 400),
    "a huge size": (INFER, tensor(shape=[3, 3, 1 << 62, 24]), {}, 400),
    "ragged": (INFER, tensor(data=[[1], [1, 2]]), {}, 400),
    "not uint8": (INFER, tensor(data=[300] * 5184), {}, 400),
    "binary is missing": (INFER, tensor(parameters={"binary_data_size": 5184}), {}, 400),
    "JSON is shorter": (INFER, tensor(), {"inference_header_content_length": "99999999"}, 400),
    "an unknown output": (INFER, tensor()[:-1] + b', "outputs": [{"name": "x"}]}', {}, 400),
    "an unreadable image": (INFER, tensor(name="encoded", datatype="BYTES", shape=[1], data=["AAAA"]), {}, 422),
    "a page of another origin": ("/predict", IMAGE, {"origin": "http://evil.example"}, 403),
    "a page of another site": ("/predict", IMAGE, {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
    "a page without an origin": ("/models", None, {"origin": "null"}, 403),
    "another host": ("/predict", IMAGE, {"host": "evil.example"}, 421),
    "loading without keys": ("/v2/repository/models/waves/load", b"", {}, 403),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_wrong_request_is_told_why(case: str, server: Running):
    path, body, headers, expected = MALFORMED[case]
    status, answer, _ = server.ask(path, body, **headers)
    assert status == expected, answer
    assert set(answer) in ({"error"}, {"model", "version", "bundle", "predictions"})


def test_every_route_is_in_the_document(server: Running):
    document = server.ask("/openapi.json")[1]
    operations = [(path, name.upper()) for path, item in document["paths"].items() for name in item]
    methods = {(route.path, method) for route in server.app.routes for method in route.methods or ()}
    assert {one for one in operations if one[1] != "PARAMETERS"} == {one for one in methods if one[1] != "HEAD"}


def test_tritonclient_talks_to_it(server: Running, bundle):
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("waves", "1")
    assert not client.is_model_ready("waves", "9")
    assert [one["name"] for one in client.get_model_metadata("waves")["inputs"]] == ["images", "encoded"]
    assert [one["name"] for one in client.get_model_repository_index()] == ["waves", "second"]
    expected = Predictor(bundle).judge(PIXELS)
    for is_binary in (True, False):
        given = triton.InferInput("images", PIXELS.shape, "UINT8")
        given.set_data_from_numpy(PIXELS, binary_data=is_binary)
        asked = [triton.InferRequestedOutput("probabilities", binary_data=is_binary)]
        answer = client.infer("waves", [given], outputs=asked, request_id="7")
        assert answer.get_response()["id"] == "7"
        assert np.abs(answer.as_numpy("probabilities") - expected.probabilities_NK).max() < 1e-5
    given = triton.InferInput("encoded", [2], "BYTES")
    given.set_data_from_numpy(np.array([IMAGE, IMAGE], object))
    answer = client.infer("waves", [given])
    prediction = Predictor(bundle).predict([IMAGE])[0]
    assert np.array(answer.as_numpy("class_name")).tolist() == [prediction.class_name.encode()] * 2
    assert np.array(answer.as_numpy("is_out_of_distribution")).tolist() == [prediction.is_out_of_distribution] * 2
    with pytest.raises(triton.InferenceServerException, match="there is no such model"):
        client.infer("none", [given])
    client.close()


def test_requests_are_measured_and_logged_with_their_trace_and_no_content(server: Running):
    trace = "0af7651916cd43dd8448eb211c80319c"
    before = server.ask("/metrics")[1].decode()
    assert server.ask("/predict/waves", IMAGE, traceparent=f"00-{trace}-b7ad6b7169203331-01")[0] == 200
    after = server.ask("/metrics")[1].decode()

    def read(text: str, name: str) -> float:
        return float(text.partition(f'{name}{{model="waves",version="1"}} ')[2].split()[0])

    for name in ("inferences_total", "executions_total", "queue_seconds_count", "decode_seconds_count"):
        assert read(after, f"classifier_{name}") == read(before, f"classifier_{name}") + 1
    assert read(after, "classifier_compute_seconds_sum") > read(before, "classifier_compute_seconds_sum")
    [line] = [one for one in server.lines("request") if one["trace_id"] == trace]
    assert (line["parent_id"], line["model"], line["status"]) == ("b7ad6b7169203331", "waves", 200)
    assert set(line) <= {
        *("time", "event", "seconds", "status", "bytes", "digest", "model", "version", "images", "method", "route"),
        *("trace_id", "span_id", "parent_id"),
    }


def test_keys_are_needed_where_there_are_any(bundle, tmp_path):
    file = tmp_path / "keys.txt"
    user, admin = add_key(file, "ann", "predict"), add_key(file, "bob", "admin")
    assert user not in file.read_text()
    server = start([Source("waves", bundle)], guard=Guard(Keys.read(file)))
    load = "/v2/repository/models/waves/load"
    try:
        for path, body, key, expected in (
            ("/predict", IMAGE, None, 401),
            ("/predict", IMAGE, "wrong", 401),
            ("/metrics", None, None, 401),
            ("/predict", IMAGE, user, 200),
            (load, b"", user, 403),
            (load, b"", admin, 200),
            ("/v2/health/ready", None, None, 200),
        ):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            assert server.ask(path, body, **headers)[0] == expected, path
    finally:
        stop(server)
    assert {one.get("key") for one in server.lines("request") if one["status"] == 200} == {"ann", "bob", None}


def test_heatmaps_are_drawn_if_they_are_asked_for(bundle):
    server = start([Source("waves", bundle)], has_maps=True)
    try:
        status, answer, _ = server.ask("/predict?maps=true", IMAGE)
        assert status == 200
        validate(server, "/predict", status, answer)
        heatmap = base64.b64decode(answer["predictions"][0]["heatmap"])
        assert Image.open(io.BytesIO(heatmap)).format == "JPEG"
        body = as_json(*[IMAGE] * 5, maps=True)
        assert server.ask("/predict", body, content_type="application/json")[0] == 413
    finally:
        stop(server)


class Slow(Predictor):
    """Takes a while for each image, so that requests pile up. sizes: of the batches."""

    seconds, sizes = 0.0, list[int]()

    def judge(self, images_NCHW, columns_NF=None):
        time.sleep(self.seconds * len(images_NCHW))
        self.sizes.append(len(images_NCHW))
        return super().judge(images_NCHW)


def test_overload_is_refused_at_once_and_batches_stay_small(bundle):
    slow = Slow(bundle, threads=1)
    server = start([Source("waves", bundle)], open_predictor=lambda _: slow, bounds=Bounds(deadline_seconds=0.5))
    limit = server.app.registry.models["waves"].current.batcher.max_size
    answers: list[tuple[int, float, str | None]] = []
    slow.sizes.clear()
    slow.seconds = 0.01

    def ask() -> None:
        for _ in range(3):
            began = time.monotonic()
            status, _, headers = server.ask("/predict", form(*[IMAGE] * 8)[0], content_type=form()[1])
            answers.append((status, time.monotonic() - began, headers["retry-after"]))

    try:
        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop(server)
    assert len(answers) == 120
    assert {status for status, _, _ in answers} == {200, 429}
    assert all(int(retry or 0) >= 1 for status, _, retry in answers if status == 429)
    assert max(slow.sizes) <= limit


def test_slow_clients_huge_heads_and_large_bodies_end(bundle):
    bounds = Bounds(head_seconds=1, body_seconds=1, head_bytes=4096, request_bytes=10_000, deadline_seconds=20)
    server = start([Source("waves", bundle)], bounds=bounds)

    def talk(*parts: bytes, pause: float = 0.0) -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            received = b""
            while part := client.recv(1 << 16):
                received += part
            return received

    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    try:
        assert talk() == b""  # nothing is sent
        assert talk(b"POST /pre") == b""
        assert talk(head + b"Content-Length: 100\r\nConnection: close\r\n\r\nabc").startswith(b"HTTP/1.1 408")
        assert talk(head + b"X: " + b"a" * 100_000).startswith(b"HTTP/1.1 431")
        assert talk(head + b"Connection: close\r\nContent-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413")
        assert talk(head + b"Content-Length: x\r\n\r\n").startswith(b"HTTP/1.1 400")
        chunk = b"2710\r\n" + b"a" * 10_000 + b"\r\n"
        chunked = head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert talk(chunked + 2 * chunk + b"0\r\n\r\n").startswith(b"HTTP/1.1 413")
        assert talk(b"\x16\x03\x01\x02\x00\x01\x00").startswith(b"HTTP/1.1 400")
        assert server.ask("/predict", IMAGE)[0] == 200
    finally:
        stop(server)
