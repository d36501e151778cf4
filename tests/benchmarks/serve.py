"""Requests per second and latency of a server, against plain FastAPI with eager torch: in turns, by one load generator.

    python tests/benchmarks/serve.py BUNDLE IMAGE [--connections 1 8 64] [--seconds 4] [--rounds 3]

Each connection sends the image again as soon as it has its answer. FastAPI is what its tutorials show: a route that
decodes with Pillow and calls the network in uvicorn's thread pool. The generator shares the cores with the servers.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120


class Client(asyncio.Protocol):
    """Sends one request again and again. seconds: of each answer with status 200; refused: of the others."""

    def __init__(self, request: bytes) -> None:
        self.request, self.seconds, self.refused = request, list[float](), 0
        self.is_ending, self.done = False, asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, mark, body = self.received.partition(b"\r\n\r\n")
        if not mark or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]):
            return
        if head.startswith(b"HTTP/1.1 200"):
            self.seconds.append(time.perf_counter() - self.began)
        else:
            self.refused += 1
        if not self.is_ending:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        self.received, self.began = b"", time.perf_counter()
        self.transport.write(self.request)


async def load(port: int, body: bytes, connections: int, seconds: float) -> tuple[float, list[float], int]:
    """Return the requests per second, the seconds of each, and how many were refused."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/*\r\nContent-Length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(head.encode() + body), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(0.5)  # not measured: queues and estimates fill
    for client in clients:
        client.seconds.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    latencies = [one for client in clients for one in client.seconds]
    for client in clients:
        client.is_ending = True
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), 30)
    for client in clients:
        client.transport.close()
    return len(latencies) / elapsed, sorted(latencies), sum(client.refused for client in clients)


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[int]:
    """Start a server; its port, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, stdout=quiet, stderr=quiet)
    try:
        for _ in range(10 * START_SECONDS):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def serve_by_fastapi(bundle: str, port: int) -> None:
    """The rival: FastAPI, Pillow, and the network in eager torch."""
    import io

    import numpy as np
    import torch
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from PIL import Image

    sys.path.insert(0, str(ROOT))
    from classifier.bundle import bundle as bundles

    loaded = bundles.load(bundle, torch.device("cpu"))
    about, model = loaded.bundle, loaded.model.eval()
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (about.mean, about.std))
    app = FastAPI()

    def classify(content: bytes) -> dict[str, object]:
        image = Image.open(io.BytesIO(content)).convert("RGB").resize((about.size, about.size))
        pixels_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            probabilities_K = model(((pixels_CHW - mean) / std)[None]).softmax(1)[0]
        top = probabilities_K.topk(min(5, len(about.class_names)))
        ranked = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return {"top": [{"class_name": about.class_names[n], "probability": share} for n, share in ranked]}

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, object]:
        return await run_in_threadpool(classify, await request.body())

    uvicorn.run(app, port=port, log_level="warning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("image")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.port:
        serve_by_fastapi(options.bundle, options.port)
        return
    body = Path(options.image).read_bytes()
    own = [sys.executable, "jobs/serve.py", f"model={options.bundle}", "--deadline", "20"]
    servers = {"classifier": own, "FastAPI": [sys.executable, __file__, options.bundle, options.image]}
    rows: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(running(command)) for name, command in servers.items()}
        for _ in range(options.rounds):
            for connections in options.connections:
                for name, port in ports.items():
                    rate, latencies, refused = asyncio.run(load(port, body, connections, options.seconds))
                    assert not refused, f"{name} refused {refused} requests"
                    p50, p99 = (1000 * latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
                    rows.setdefault((name, connections), []).append((rate, p50, p99))
    print(f"{os.cpu_count()} cores, {len(body):,} bytes an image; medians of {options.rounds} rounds in turns")
    print(f"{'server':<12}{'connections':>12}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for (name, connections), found in sorted(rows.items(), key=lambda row: (row[0][1], row[0][0])):
        rate, p50, p99 = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:<12}{connections:>12}{rate:>12.0f}{p50:>9.1f}{p99:>9.1f}")


if __name__ == "__main__":
    main()
