"""Folders of Ray's sessions: whose they are, when they are removed, and which file tells where a cluster runs."""

import os
import subprocess
import sys
import time

import pytest

from classifier.errors import ConfigError
from jobs.launch import cluster, local_cluster

OPEN = """
import sys
from jobs.launch import local_cluster
print(local_cluster.open_session(), flush=True)
sys.stdin.readline()
"""
WRITE = """
import sys
file = open(sys.argv[1], "w")
print(flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    return tmp_path


@pytest.fixture
def start(temporary):
    """Start a Python process; it and its first line."""
    processes = []

    def run(code, *words):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_next_run_removes_what_a_killed_one_has_left(start, temporary):
    (living, kept), (killed, left) = start(OPEN), start(OPEN)
    log = f"{left}/raylet.out"
    (agent, _), (bystander, _) = start(WRITE, log), start(WRITE, f"{kept}/raylet.out")
    with open(log) as reader:  # as a person reads the log of a crash
        killed.kill()
        killed.wait()
        _, new = start(OPEN)
        assert reader.fileno()
    assert agent.wait(timeout=10) != 0
    assert bystander.poll() is None
    assert living.poll() is None
    assert {os.path.isdir(kept), os.path.isdir(new)} == {True}
    assert not os.path.exists(left)
    assert os.stat(temporary / f"ray-{os.getuid()}").st_mode & 0o077 == 0


@pytest.mark.parametrize("names", [(), ("nets:Net",)])
def test_workers_import_from_the_working_directory_only_what_is_trusted(names, monkeypatch):
    monkeypatch.setattr(cluster, "trusted", lambda: names)
    config = cluster._make_job_config()
    config._py_driver_sys_path.append("/received")  # as ray.init does with the working directory
    assert ("/received" in str(config._serialize())) == bool(names)


def test_folder_for_sessions_that_others_hold_is_refused(temporary):
    home = temporary / f"ray-{os.getuid()}"
    home.symlink_to("/")
    with pytest.raises(ConfigError, match="belongs to another user: set RAY_TMPDIR"):
        local_cluster.open_session()
    home.unlink()
    home.write_text("")
    with pytest.raises(ConfigError, match="set RAY_TMPDIR"):
        local_cluster.open_session()


def _write(path):
    path.write_text("127.0.0.1:6379\n")


def _write_as_another_user(path):
    _write(path)
    os.chown(path, 65534, 65534)


def _link(path):
    _write(path.with_name("mine"))
    path.symlink_to("mine")


@pytest.mark.parametrize(
    ("make", "found"),
    [(_write, "127.0.0.1:6379"), (_link, None), (os.mkfifo, None), (os.mkdir, None), (lambda path: None, None)],
)
def test_running_cluster_is_read_from_a_plain_file_of_this_user(temporary, make, found):
    make(temporary / "ray" / "ray_current_cluster")
    assert local_cluster.find_address() == found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_running_cluster_that_another_user_noted_is_not_joined(temporary):
    _write_as_another_user(temporary / "ray" / "ray_current_cluster")
    assert local_cluster.find_address() is None
    assert cluster._address() == "local"


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.0.0.1:99999", "", "\x1b[2J:7", "a\nb:6379", "local"])
def test_cluster_that_does_not_answer_is_not_joined(temporary, monkeypatch, text):
    (temporary / "ray" / "ray_current_cluster").write_text(text)
    began = time.monotonic()
    assert cluster._address() == "local"
    monkeypatch.setenv("RAY_ADDRESS", text if ":" in text else "auto")
    if text != "local":
        with pytest.raises(ConfigError, match="RAY_ADDRESS is"):
            cluster._address()
    assert time.monotonic() - began < 10
