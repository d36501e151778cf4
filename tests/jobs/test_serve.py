"""`serve` as a process, without torch: started, asked, reloaded and ended by signals; and its users' mistakes."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from classifier.errors import ConfigError
from jobs.serve import read_sources
from tests.export.conftest import gate as gate
from tests.export.conftest import waves as waves
from tests.export.test_without_torch import HOOK
from tests.serve.conftest import bundle as bundle
from tests.serve.conftest import encode
from tests.watch.conftest import write_film

ROOT = Path(__file__).resolve().parents[2]


def start(*words: object, cwd: Path, hook: str = HOOK) -> subprocess.Popen[str]:
    path = str(ROOT / "jobs" / "serve.py")
    run = f"import runpy\nrunpy.run_path({path!r}, run_name='__main__')"
    program = f"{hook}\nsys.argv = {[path, *map(str, words)]!r}\n{run}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=environment)


def ask(port: int, key: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/predict", encode(), {"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer.get("version", "")


@pytest.mark.long
def test_a_server_starts_reloads_and_ends(bundle: Path, tmp_path: Path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    made = start("--key_file", "keys.txt", "--add_key", "ann", cwd=tmp_path)
    key = made.communicate(timeout=60)[0].strip()
    assert made.returncode == 0
    server = start(f"waves={copy}", "--port", "0", "--key_file", "keys.txt", cwd=tmp_path)
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        port = next(int(line.rpartition(":")[2]) for line in lines if line.startswith("http://127.0.0.1:"))
        assert ask(port, "wrong") == (401, "")
        assert ask(port, key) == (200, "1")
        with (copy / "bundle.json").open("a") as file:
            file.write(" ")
        server.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while ask(port, key) != (200, "2"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        log = server.communicate(timeout=60)[1]
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0, log
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert "switched" in events
    assert events[-1] == "draining"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "BUNDLES are missing"),
        (["nowhere"], "nowhere does not exist"),
        (["a b=nowhere"], "cannot name a model"),
        (["nowhere", "--host", "0.0.0.0"], "give --key_file"),
        (["nowhere", "--key_file", "absent.txt"], "absent.txt cannot be read"),
        (["--add_key", "ann"], "give --key_file"),
        (["nowhere", "--films", "1", "--replicas", "2"], "--films is for one process"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_a_sentence(words: list[str], said: str, verb):
    done = verb("serve", *words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert said in done.err


def test_films_need_what_decodes_them(tmp_path: Path):
    done = start("nowhere", "--films", "1", cwd=tmp_path, hook=f"{HOOK}\nsys.modules['av'] = None")
    _, error = done.communicate(timeout=60)
    assert (done.returncode, error.count("\n")) == (2, 1), error
    assert 'av is not installed: pip install "classifier-jobs[watch]"' in error


@pytest.mark.long
def test_films_are_watched(bundle: Path, tmp_path: Path):
    """By a process that the verb starts, without keys; it ends with the server."""
    write_film(tmp_path / "film.mp4", [("red", 1.0), ("blue", 1.0)])
    server = start(f"waves={bundle}", "--port", "0", "--films", "1", cwd=tmp_path)
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        port = next(int(line.rpartition(":")[2]) for line in lines if line.startswith("http://127.0.0.1:"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/watch/waves?alert=ant+%3E%3D+0", (tmp_path / "film.mp4").read_bytes())
        response = connection.getresponse()
        events = [json.loads(line) for line in response.read().splitlines()]
        connection.close()
        assert [one["event"] for one in events] == ["alert", "alert_ended", "finished"]
        assert (events[-1]["frames"], events[-1]["answered"]) == (50, 10)
        server.send_signal(signal.SIGTERM)
        log = server.communicate(timeout=60)[1]
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0, log


def test_names_of_models():
    found = read_sources(["runs/cats-3", "runs/cats-4/bundle", "dogs=deploy/x=1"])
    assert [one.model for one in found] == ["cats-3", "cats-4", "dogs"]
    assert found[2].path == Path("deploy/x=1")
    with pytest.raises(ConfigError, match="cannot name a model"):
        read_sources(["runs/my cats"])
