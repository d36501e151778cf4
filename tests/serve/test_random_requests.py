"""Random and mutated requests: each is answered in time, or its connection ends; none with an error of the server."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from classifier.serve.bounds import Bounds
from classifier.serve.registry import Source
from tests.serve.conftest import Running, encode, start, stop
from tests.serve.test_app import INFER, as_json, form, tensor

FORM, KIND = form(encode(), encode())
BODIES = (
    ("/predict", "image/png", encode()),
    ("/predict", "image/jpeg", encode(40, "JPEG")),
    ("/predict", "multipart/form-data; boundary=cut", FORM),
    ("/predict?top=2", "application/json", as_json(encode(), top=2)),
    (INFER, "application/json", tensor(shape=[1, 3, 2, 2], data=list(range(12)))),
    (INFER, "application/json", tensor(name="encoded", datatype="BYTES", shape=[1], data=["AAAA"])),
)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, cut, repeat or insert bytes."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(0, len(changed) + 1))
        stop = min(len(changed), start + int(rng.integers(0, 30)))
        piece = rng.bytes(int(rng.integers(0, 10)))
        changed[start:stop] = (piece, bytes(changed[start:stop]) * 2, b"", b'"-1e999{[')[rng.integers(4)]
    return bytes(changed)


def send(port: int, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(content)
        received = b""
        try:
            while part := client.recv(1 << 16):
                received += part
        except ConnectionResetError:
            pass
        return received


@pytest.fixture
def impatient(bundle: Path) -> Iterator[Running]:
    """A server that waits for nobody: a length may say more than comes."""
    server = start([Source("waves", bundle)], bounds=Bounds(head_seconds=0.3, body_seconds=0.3, deadline_seconds=20))
    yield server
    stop(server)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_mutated_requests_are_the_clients_fault(count: int, impatient: Running):
    rng = np.random.default_rng(0)
    statuses = []
    for n in range(count):
        path, kind, body = BODIES[n % len(BODIES)]
        body = mutate(body, rng)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n".encode()
        whole = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        answer = send(impatient.port, mutate(whole, rng) if n % 5 == 0 else whole)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), whole
        if answer:
            statuses.append(int(answer[9:12]))
            assert statuses[-1] < 500, whole
    assert len(statuses) > count // 2
    assert {200, 400} <= set(statuses)
    assert not impatient.lines("error")
    assert impatient.ask("/predict", encode())[0] == 200


@pytest.mark.slow
def test_requests_from_the_openapi_document_are_answered_as_it_says(bundle: Path, tmp_path: Path):
    """Schemathesis: requests that the document allows, and others, on every route."""
    server = start([Source("waves", bundle)])
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", f"{checks},unsupported_method", "--max-response-time", "20", "--max-examples", "450"]
    options += ["--phases", "coverage,fuzzing", "--seed", "0", "--continue-on-failure", "--warnings", "off"]
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command is not None
    url = f"http://127.0.0.1:{server.port}/openapi.json"
    words = [command, "run", url, "--no-color", *options]
    process = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-5000:]
    stop(server)
    assert not server.lines("error")
    assert len(server.lines("request")) > 5000
