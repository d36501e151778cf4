"""Replicas on a Ray cluster: they answer as one server does, and one that is killed costs no answer."""

import contextlib
import http.client
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import Any

import psutil
import pytest

from classifier.config.sections import WorkersConfig
from classifier.errors import ConfigError
from jobs.launch.serving import Scale, find_free_port
from jobs.serve import make_replica_service
from tests.export.conftest import gate as gate
from tests.export.conftest import waves as waves
from tests.serve.conftest import bundle as bundle
from tests.serve.conftest import encode

KILLS = 4
IMAGE = encode()
V2 = json.dumps(
    {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 3, 24, 24], "data": [0] * (3 * 24 * 24)}]}
).encode()


@pytest.mark.parametrize(
    ("replicas", "cpus", "expected"),
    [
        ("auto", None, (1, 8)),
        ("auto", 3.0, (1, 2)),
        ("auto", 16.0, (1, 1)),
        ("3", None, (3, 3)),
        ("2-16", 4.0, (2, 16)),
    ],
)
def test_replicas_are_counted(replicas: str, cpus: float | None, expected: tuple[int, int]):
    assert Scale(replicas, WorkersConfig(cpus=cpus), 2.0, 512).count({"CPU": 8.0}) == expected


@pytest.mark.parametrize("replicas", ["0", "many", "3-2", "-1", "2-", "99999"])
def test_what_is_no_number_of_replicas_is_refused(replicas: str):
    with pytest.raises(ConfigError, match="a number, MIN-MAX or auto"):
        Scale(replicas, WorkersConfig(), 2.0, 512).count({"CPU": 8.0})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bundles": ["b"], "hots": "0.0.0.0"}, "'hots' is no option"),
        ({"bundles": ["b"], "deadline": -1}, "deadline is -1"),
        ({"bundles": ["b"], "workers.cpus": 0}, "workers.cpus is 0"),
        ({"bundles": ["b"], "capture": "kept"}, "--capture is for one process"),
        ({"bundles": ["b"], "key_file": "absent.txt"}, "absent.txt cannot be read"),
    ],
)
def test_what_a_cluster_passes_is_validated(given: Mapping[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        make_replica_service(given)


def ask(port: int, path: str, body: bytes | None, key: str, kind: str = "image/png") -> tuple[int, dict, Message]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers


def find_replicas() -> list[psutil.Process]:
    """Return the replicas, of this test's cluster, that have loaded their models: they listen."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            is_replica = "".join(process.cmdline()[:1]).startswith("ray::ServeReplica:classifier")
            if is_replica and any(map(listens_for_haproxy, process.net_connections())):
                found.append(process)
    return found


def kill_one_of_two() -> None:
    """Kill a replica, and wait until another one has replaced it."""
    time.sleep(2)  # until HAProxy has found that the other one answers, too: every 0.25 s, twice
    victim = find_replicas()[0]
    victim.send_signal(signal.SIGKILL)
    wait_for(lambda: len(find_replicas()) == 2 and victim not in find_replicas(), 120)


def listens_for_haproxy(connection: Any) -> bool:
    return connection.status == psutil.CONN_LISTEN and 30_000 <= connection.laddr.port < 31_000


@pytest.mark.slow
def test_replicas_answer_as_one_survive_a_kill_and_reload(bundle: Path, joined, started, verb, tmp_path: Path):
    key = verb("serve", "--key_file", "keys.txt", "--add_key", "ann").out.strip()
    port = find_free_port()
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    words = (f"waves={copy}", "--key_file", "keys.txt", "--port", port, "--replicas", "2", "--deadline", "20")
    server = started("serve", *words)
    answers, cut, refused = list[tuple[int, int]](), list[float](), list[float]()
    is_done, has_ended = threading.Event(), threading.Event()

    def ask_again() -> None:
        while not is_done.is_set():
            try:
                status, answer, _ = ask(port, "/predict", IMAGE, key)
                answers.append((status, int(answer.get("version", 0))))
            except (OSError, ValueError, http.client.HTTPException):  # nobody listens, or HAProxy says so itself
                (refused if has_ended.is_set() else cut).append(time.monotonic())
                if has_ended.is_set():
                    return

    threads = [threading.Thread(target=ask_again) for _ in range(4)]
    try:
        wait_for(lambda: len(find_replicas()) == 2 and is_ready(port), 120)
        assert ask(port, "/predict", IMAGE, "wrong")[0] == 401
        status, answer, headers = ask(port, "/v2/models/waves/infer", V2, key, "application/json")
        assert (status, answer["model_name"]) == (200, "waves")
        assert headers["traceparent"].startswith(f"00-{'a' * 32}-")
        assert headers["x-content-type-options"] == "nosniff"
        for thread in threads:
            thread.start()
        wait_for(lambda: len(answers) > 100, 60)
        for _ in range(KILLS):
            kill_one_of_two()
        with (copy / "bundle.json").open("a") as file:
            file.write(" ")
        server.send_signal(signal.SIGHUP)  # both load what has changed
        wait_for(lambda: {version for _, version in answers[-50:]} == {2}, 60)
        has_ended.set()
        server.send_signal(signal.SIGTERM)  # while requests come
        assert server.wait(60) == 0
    finally:
        is_done.set()
        for thread in threads:
            if thread.ident:
                thread.join()
        server.send_signal(signal.SIGTERM)
    assert {status for status, _ in answers} == {200}
    assert len(refused) == len(threads)  # at the end, and nothing else
    assert not cut
    assert not find_replicas()


def is_ready(port: int) -> bool:
    try:
        return ask(port, "/v2/health/ready", None, "")[0] == 200
    except (OSError, ValueError):
        return False


def wait_for(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
