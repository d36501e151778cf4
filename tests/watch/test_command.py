"""`watch` as a process, without torch: a film, a stream that is ended by a signal; and its users' mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.export.conftest import gate as gate
from tests.export.conftest import waves as waves
from tests.export.test_without_torch import HOOK
from tests.serve.conftest import bundle as bundle
from tests.watch.conftest import live as live
from tests.watch.conftest import write_film

ROOT = Path(__file__).resolve().parents[2]


def start(*words: object, cwd: Path) -> subprocess.Popen[str]:
    path = str(ROOT / "jobs" / "watch.py")
    run = f"import runpy\nrunpy.run_path({path!r}, run_name='__main__')"
    program = f"{HOOK}\nsys.argv = {[path, *map(str, words)]!r}\n{run}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=environment
    )


@pytest.mark.long
def test_a_film_is_watched_without_torch(bundle: Path, tmp_path: Path):
    write_film(tmp_path / "film.mp4", [("red", 1.0), ("blue", 1.0)])
    rules = [word for name in ("ant", "bee", "cat") for word in ("--alert", f"{name} > 0.34 until < 0.1")]
    process = start(bundle, "film.mp4", "--name", "gate", "--before", 1, "--after", 1, *rules, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    run = tmp_path / "runs" / "gate"
    assert events
    assert (run / "alerts.jsonl").read_text() == out
    assert (run / events[0]["frame_file"]).is_file()
    assert (run / events[0]["clip_file"]).is_file()
    result = json.loads((run / "result.json").read_text())
    assert (result["kind"], result["status"], result["frames"], result["answered"]) == ("watch", "finished", 50, 10)
    assert "64 x 48 pixels, 25 frames/s, h264" in err
    assert f"50 frames, 10 answered, {result['alerts']} alerts" in err


@pytest.mark.long
def test_a_signal_ends_it_cleanly(bundle: Path, tmp_path: Path, live):
    source = live([("red", 60.0)])
    url = source.url.replace("//", "//ann:secret@")
    words = ("--name", "gate", "--alert", "ant >= 0", "--after", 60, "--port", 0)
    process = start(bundle, url, *words, cwd=tmp_path)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    [last] = map(json.loads, out.splitlines())
    assert (first["event"], last["event"], last["id"], last["is_watched"]) == (
        "alert",
        "alert_ended",
        first["id"],
        False,
    )
    assert (tmp_path / "runs" / "gate" / first["clip_file"]).is_file()
    files = [path for path in (tmp_path / "runs" / "gate").rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() for path in files)
    assert "secret" not in out + err
    assert json.loads((tmp_path / "runs" / "gate" / "result.json").read_text())["status"] == "stopped"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "SOURCE"),
        (["nowhere", "absent.mp4"], "absent.mp4 cannot be opened"),
        (["nowhere", "."], "nowhere does not exist"),
        (["nowhere", ".", "--region", "0,0,2,1"], "--region '0,0,2,1' is no part of a frame"),
        (["nowhere", ".", "--region", "0,0,1,1"], "--region is of videos"),
        (["nowhere", ".", "--motion", "3"], "--motion is of videos"),
        (["nowhere", ".", "--webhook", "example.com"], "--webhook is no web address"),
        (["nowhere", ".", "--webhook", "https://ann:pw@host/"], "--webhook has a user or a password"),
        (["nowhere", ".", "--secret", "key"], "give that, too"),
        (["BUNDLE", ".", "--alert", "elephant > 0.5"], "no class 'elephant': there are ant, bee, cat"),
        (["BUNDLE", "broken.mp4"], "broken.mp4 cannot be read as a video"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_in_a_sentence(words: list[str], said: str, verb, bundle: Path, tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"nonsense" * 1000)
    done = verb("watch", *(bundle if word == "BUNDLE" else word for word in words))
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert said in done.err
