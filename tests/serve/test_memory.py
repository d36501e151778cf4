"""A server's memory stays flat, however many requests it has answered."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serve.conftest import encode

ROOT = Path(__file__).resolve().parent.parent.parent
# REQUESTS=1000000 runs it at length.
REQUESTS, PIPELINED = int(os.environ.get("REQUESTS", "30000")), 50


@contextmanager
def serve(bundle: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """The process and the port of `serve`, which is ended."""
    command = [sys.executable, str(ROOT / "jobs" / "serve.py"), str(bundle), "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = next(int(found[1]) for line in process.stdout if (found := re.match(r"http://.*:(\d+)", line)))
        yield process.pid, port
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def read_rss(pid: int) -> int:
    """Resident memory in kilobytes."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def ask_many(client: socket.socket, request: bytes, count: int) -> None:
    """Send requests in one go, and read as many answers."""
    client.sendall(request * count)
    received = b""
    while received.count(b'"predictions"') < count:
        part = client.recv(1 << 16)
        assert part, received[-500:]
        received += part
    assert received.count(b"HTTP/1.1 200 OK") == count


@pytest.mark.slow
def test_memory_is_flat(bundle: Path, tmp_path: Path):
    body = encode()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serve(bundle, "--capture", str(tmp_path), "--capture_images", "--capture_mb", "1") as (pid, port):
        sizes = []
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            for n in range(REQUESTS // PIPELINED):
                ask_many(client, head + body, PIPELINED)
                if n % max(1, REQUESTS // PIPELINED // 20) == 0:
                    sizes.append(read_rss(pid))
    print([round(size / 1024, 1) for size in sizes])
    early = sizes[len(sizes) // 4]
    assert max(sizes[len(sizes) // 4 :]) < 1.05 * early, sizes
