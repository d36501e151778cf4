"""Requests and answers that are kept: as they were answered, within bounds, and never at the cost of an answer."""

import base64
import hashlib
import io
import json
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from classifier.errors import ConfigError
from classifier.serve.capture import capture as capture_module
from classifier.serve.capture.capture import Capture, CaptureBounds
from classifier.serve.metrics import Metrics
from classifier.serve.registry import Source
from tests.serve.conftest import encode, start, stop


def read(folder) -> pa.Table:
    files = sorted(folder.glob("*.parquet"), key=lambda path: path.name)
    return pa.concat_tables([pq.read_table(file) for file in files])


def test_requests_are_kept_as_they_were_answered(bundle, tmp_path):
    folder = tmp_path / "kept"
    server = start([Source("waves", bundle)], capture=folder, kept=CaptureBounds(has_images=True))
    first, second = encode(seed=1), encode(40, "JPEG", seed=2)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = json.dumps({"images": [base64.b64encode(one).decode() for one in (first, b"no image", second)]}).encode()
    _, answer, _ = server.ask("/predict", body, content_type="application/json", traceparent=trace)
    assert server.ask("/predict", b"no image either")[0] == 422
    pixels_NCHW = np.random.default_rng(3).integers(0, 256, (2, 3, 24, 24), dtype=np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 3, 24, 24], "data": pixels_NCHW.ravel().tolist()}
    assert server.ask("/v2/models/waves/infer", json.dumps({"inputs": [tensor]}).encode())[0] == 200
    stop(server)

    rows = read(folder / "waves").to_pylist()
    assert [row["image_id"] for row in rows] == [
        hashlib.sha256(one).hexdigest() for one in (first, b"no image", second, b"no image either", *pixels_NCHW)
    ]
    assert [bool(row["error"]) for row in rows] == [False, True, False, True, False, False]
    for row, said in zip(rows, answer["predictions"], strict=False):
        assert row["predicted_name"] == said.get("class_name")
        assert row["error"] == said.get("error")
        assert row["trace_id"] == trace.split("-")[1]
    assert {(row["model"], row["version"], row["bundle"]) for row in rows} == {("waves", "1", answer["bundle"])}
    assert [row["image"] is None for row in rows] == [bool(row["error"]) for row in rows]
    shown_HWC = np.asarray(Image.open(io.BytesIO(rows[4]["image"])))
    np.testing.assert_array_equal(shown_HWC.transpose(2, 0, 1), pixels_NCHW[0])
    assert len(rows[0]["statistics"]) == len(rows[5]["statistics"]) > 0
    assert rows[1]["statistics"] is None
    assert sum(rows[0]["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_oldest_files_are_deleted(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(capture_module, "PART_IMAGES", 2)
    (other := tmp_path / "waves" / "00000.parquet").parent.mkdir()
    other.write_bytes(bytes(100_000))  # not its own
    server = start([Source("waves", bundle)], capture=tmp_path, kept=CaptureBounds(max_bytes=30_000))
    for seed in range(12):
        assert server.ask("/predict", encode(seed=seed))[0] == 200
    stop(server)
    assert other.stat().st_size == 100_000
    other.unlink()
    ids = read(tmp_path / "waves")["image_id"].to_pylist()
    assert 0 < len(ids) < 12
    assert ids == [hashlib.sha256(encode(seed=seed)).hexdigest() for seed in range(12 - len(ids), 12)]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.parquet")) <= 30_000
    assert len(server.lines("capture_deleted")) == (12 - len(ids)) / 2


def test_a_full_disk_or_a_slow_one_holds_up_no_answer(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(capture_module, "PART_IMAGES", 1)

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    server = start([Source("waves", bundle)], capture=tmp_path)
    for seed in range(5):
        assert server.ask("/predict", encode(seed=seed))[0] == 200
    monkeypatch.setattr(capture_module, "MAX_WAITING_BYTES", 100)
    assert server.ask("/predict", encode(seed=5))[0] == 200
    stop(server)
    assert [line["error"] for line in server.lines("capture_failed")] == ["No space left on device"]
    dropped = server.app.metrics.registry.get_sample_value("classifier_capture_dropped_total", {"model": "waves"})
    assert dropped == 6
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="choose another --capture"):
        Capture(tmp_path / "file", CaptureBounds(), Metrics(), print)
