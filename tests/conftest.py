"""Shared fixtures: small real data sets, and the verbs as a user runs them."""

import atexit
import contextlib
import functools
import json
import multiprocessing
import multiprocessing.context
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from tests.forkserver import ForkServer, Process

ROOT = Path(__file__).resolve().parent.parent
COMMAND_FIXTURES = {"verb", "verb_in", "started", "cluster", "two_ranks"}
CORES = os.sched_getaffinity(0)
# Verbs choose their number of threads by the load of other processes; runs that are compared bit for bit need the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The default recipe would download better backbones.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Ray gives its workers the lowest priority but four: beside a busy process they would hardly run.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
if (number := os.environ.get("PYTEST_XDIST_WORKER", "")[2:]).isdecimal():
    # A core for each test process, and so one thread: threads that share cores would wait for each other.
    os.sched_setaffinity(0, {sorted(CORES)[int(number) % len(CORES)]})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, so that none is left for the end, and mark what runs whole commands as long."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/jobs/"))
    for item in items:
        if COMMAND_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("long")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory) -> None:
    """A temporary home folder, with the image cache."""
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def s3_server():
    """A local S3 server: its process and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() - began < 60
            assert process.poll() is None
            time.sleep(0.1)
    yield process, port
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def bucket(s3_server, monkeypatch) -> tuple[str, str]:
    """An empty bucket on it: the parts of its URI before and after a path. The keys are in the environment."""
    _, port = s3_server
    for name, value in {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"b{time.time_ns()}"
    fs.S3FileSystem(endpoint_override=f"http://127.0.0.1:{port}", allow_bucket_creation=True).create_dir(name)
    return f"s3://{name}", f"?endpoint_override=127.0.0.1:{port}&scheme=http"


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The run folder: the last line on stdout."""
        return Path(self.out.rstrip().rpartition("\n")[2])

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


def command_of(verb: str, *words: object) -> list[str]:
    """`python jobs/VERB.py WORDS`, with this Python."""
    return [sys.executable, str(ROOT / "jobs" / f"{verb}.py"), *map(str, words)]


@functools.cache
def fork_server() -> ForkServer:
    """The server that forks the commands of this test process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def start_verb(verb: str, *words: object, cwd: Path, **pipes: int) -> Process:
    """Start a verb in `cwd`, in a process of its own that need not import torch."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    affinity = CORES if verb in ("tune", "crossval", "curve") else os.sched_getaffinity(0)
    return fork_server().start(command_of(verb, *words)[1:], cwd=cwd, env=environment, affinity=affinity, **pipes)


@functools.cache
def worker_processes() -> multiprocessing.context.ForkServerContext:
    """Processes for the ranks of a process group, forked from one that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "torch.nn.parallel", "classifier.training.loop"]
    )  # DDP loads dynamo
    return context


def run_verb(verb: str, *words: object, cwd: Path, timeout: float = 300) -> Done:
    """Run a verb to its end in `cwd`, as a user would; the run folder is returned as an absolute path."""
    process = start_verb(verb, *words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.close()
    lines = out.rstrip().split("\n")
    if process.returncode == 0 and (cwd / lines[-1]).is_dir():
        lines[-1] = str(cwd / lines[-1])
    return Done(process.wait(), "\n".join(lines), err)


@pytest.fixture(scope="session")
def verb_in():
    """run_verb with the folder first, for fixtures that outlive a test."""
    return lambda folder, name, *words: run_verb(name, *words, cwd=folder)


@pytest.fixture
def verb(tmp_path):
    """run_verb in the test's own folder."""
    return lambda name, *words, **more: run_verb(name, *words, cwd=tmp_path, **more)


def draw_photos(root: Path, counts: dict[str, int], *, size: int = 24, seed: int = 0) -> Path:
    """A folder of class folders with small PNGs; each class has its own colour and stripe, with noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for k, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = rng.integers(0, 90, (size, size, 3))
            image[:, :, k % 3] += 110
            offset = int(rng.integers(2, size - 4))
            if k % 2:
                image[offset : offset + 2] += 50
            else:
                image[:, offset : offset + 2] += 50
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / name / f"{i:03d}.png")
    return root


@pytest.fixture
def started(tmp_path):
    """Start a verb in the test's folder without waiting for its end; killed at the end of the test."""
    with contextlib.ExitStack() as ends:

        def start(name: str, *words: object, cwd: Path = tmp_path, **pipes: int) -> Process:
            process = start_verb(name, *words, cwd=cwd, **{"stdout": subprocess.DEVNULL} | pipes)
            ends.callback(process.close)
            return process

        yield start


@pytest.fixture
def draw():
    """draw_photos, for tests that lay out their own folders."""
    return draw_photos


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes of 40 images of 24 x 24 pixels."""
    return draw_photos(tmp_path / "photos", {"red": 40, "green": 40, "blue": 40})
