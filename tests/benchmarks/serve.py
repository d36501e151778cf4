"""Requests per second and latency of servers with the same model: in turns, by one load generator.

    python tests/benchmarks/serve.py BUNDLE IMAGE [--servers own fastapi ...] [--connections 1 8 64] [--rounds 3]

Each connection sends the image again as soon as it has its answer. `own` is this project's, `replicas1` and `replicas2`
the same on Ray. FastAPI is what its tutorials show: a route that decodes with Pillow and calls the network in uvicorn's
thread pool; LitServe decodes and batches as its tutorials do, for which images are sent as base64 (`--litserve PYTHON`
that has it installed). The generator shares the cores with the servers.
"""

import argparse
import asyncio
import base64
import contextlib
import http.client
import io
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

litserve: Any
try:
    import litserve  # pyright: ignore[reportMissingImports] - not a dependency
except ImportError:
    litserve = None

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120
RIVALS = ("fastapi", "litserve")


class Client(asyncio.Protocol):
    """Sends one request again and again. seconds: of each answer with status 200; refused: of the others.

    reset: how often the server closed the connection, which is then opened again.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.port, self.request, self.seconds, self.refused, self.reset = port, request, list[float](), 0, 0
        self.is_ending, self.done = False, asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        while not self.is_ending:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)
                return
            await asyncio.sleep(0.1)

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
        if self.done.done():
            return
        self.reset += 1
        if self.is_ending:
            self.done.set_result(None)
        else:
            self.reconnecting = asyncio.ensure_future(self.connect())

    def _send(self) -> None:
        self.received, self.began = b"", time.perf_counter()
        self.transport.write(self.request)


async def load(
    port: int, body: bytes, kind: str, connections: int, seconds: float
) -> tuple[float, list[float], int, int]:
    """Return the requests per second, the seconds of each, how many were refused, and connections that were reset."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    clients = [Client(port, head.encode() + body) for _ in range(connections)]
    await asyncio.gather(*(client.connect() for client in clients))
    await asyncio.sleep(0.5)  # not measured: queues and estimates fill
    for client in clients:
        client.seconds.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    latencies = [one for client in clients for one in client.seconds]
    for client in clients:
        client.is_ending = True
    await asyncio.wait([client.done for client in clients], timeout=30)
    for client in clients:
        client.transport.close()
    refused, reset = (sum(getattr(client, name) for client in clients) for name in ("refused", "reset"))
    return len(latencies) / elapsed, sorted(latencies), refused, reset


@contextlib.contextmanager
def running(command: list[str], body: bytes, kind: str) -> Iterator[int]:
    """Start a server; its port, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, stdout=quiet, stderr=quiet, process_group=0)
    try:
        for _ in range(10 * START_SECONDS):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request("POST", "/predict", body, {"Content-Type": kind})
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{command[1]} does not answer")
        yield port
    finally:
        process.terminate()
        process.wait(60)
        with contextlib.suppress(ProcessLookupError):  # LitServe leaves its workers
            os.killpg(process.pid, signal.SIGKILL)


class EagerModel:
    """A bundle's network in eager torch, with Pillow, as a script would use it."""

    def __init__(self, bundle: str) -> None:
        import torch

        sys.path.insert(0, str(ROOT))
        from classifier.bundle import bundle as bundles

        loaded = bundles.load(bundle, torch.device("cpu"))
        self.about, self.model = loaded.bundle, loaded.model.eval()
        self.mean, self.std = (torch.tensor(one).view(-1, 1, 1) for one in (self.about.mean, self.about.std))

    def decode(self, content: bytes) -> Any:
        import numpy as np
        import torch
        from PIL import Image

        image = Image.open(io.BytesIO(content)).convert("L" if self.about.channels == 1 else "RGB")
        pixels_HWC = np.array(image.resize((self.about.size, self.about.size))).reshape(
            self.about.size, self.about.size, self.about.channels
        )
        return (torch.from_numpy(pixels_HWC).permute(2, 0, 1).float() / 255 - self.mean) / self.std

    def compute(self, images_NCHW: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(images_NCHW).softmax(1)

    def describe(self, probabilities_K: Any) -> dict[str, object]:
        top = probabilities_K.topk(min(5, len(self.about.class_names)))
        ranked = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return {"top": [{"class_name": self.about.class_names[n], "probability": share} for n, share in ranked]}


def serve_by_fastapi(bundle: str, port: int) -> None:
    """A rival: FastAPI, an image at a time."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool

    model, app = EagerModel(bundle), FastAPI()

    def classify(content: bytes) -> dict[str, object]:
        return model.describe(model.compute(model.decode(content)[None])[0])

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, object]:
        return await run_in_threadpool(classify, await request.body())

    uvicorn.run(app, port=port, log_level="warning")


_LitApi: Any = litserve.LitAPI if litserve else object


class LitApi(_LitApi):
    """A rival's model: LitServe pickles its class, which therefore is not in a function."""

    bundle = ""

    def setup(self, device: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.eager = EagerModel(self.bundle)

    def decode_request(self, request: dict[str, str]) -> Any:
        return self.eager.decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> Any:
        import torch

        return torch.stack(inputs)

    def predict(self, images_NCHW: Any) -> Any:
        return self.eager.compute(images_NCHW)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, probabilities_K: Any) -> dict[str, object]:
        return self.eager.describe(probabilities_K)


def serve_by_litserve(bundle: str, port: int) -> None:
    """A rival: LitServe with its batching, a worker per core."""
    api: Any = LitApi(max_batch_size=16, batch_timeout=0.005)
    api.bundle = bundle
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=os.cpu_count() or 1)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("image")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", nargs="+", default=["own", "fastapi"], help="also replicas1, replicas2, litserve")
    parser.add_argument("--litserve", default=sys.executable, help="a Python that has LitServe")
    parser.add_argument("--rival", choices=RIVALS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rival:
        serve = {"fastapi": serve_by_fastapi, "litserve": serve_by_litserve}[options.rival]
        serve(options.bundle, options.port)
        return
    content = Path(options.image).read_bytes()
    encoded = json.dumps({"image": base64.b64encode(content).decode()}).encode()
    own = [sys.executable, "jobs/serve.py", f"model={options.bundle}", "--deadline", "20"]
    commands = {"own": own} | {f"replicas{count}": [*own, "--replicas", str(count)] for count in (1, 2)}
    for rival, python in zip(RIVALS, (sys.executable, options.litserve), strict=True):
        commands[rival] = [python, __file__, options.bundle, options.image, "--rival", rival]
    sent = dict.fromkeys(commands, (content, "image/*")) | {"litserve": (encoded, "application/json")}
    rows: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(running(commands[name], *sent[name])) for name in options.servers}
        for _ in range(options.rounds):
            for connections in options.connections:
                for name, port in ports.items():
                    rate, latencies, refused, reset = asyncio.run(load(port, *sent[name], connections, options.seconds))
                    latencies = latencies or [math.inf]
                    p50, p99 = (1000 * latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.99))
                    rows.setdefault((name, connections), []).append((rate, p50, p99, refused, reset))
    print(f"{os.cpu_count()} cores, {len(content):,} bytes an image; medians of {options.rounds} rounds in turns")
    print(f"{'server':<12}{'connections':>12}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'refused':>9}{'reset':>7}")
    for (name, connections), found in sorted(rows.items(), key=lambda row: (row[0][1], row[0][0])):
        rate, p50, p99, refused, reset = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:<12}{connections:>12}{rate:>12.0f}{p50:>9.1f}{p99:>9.1f}{refused:>9.0f}{reset:>7.0f}")


if __name__ == "__main__":
    main()
