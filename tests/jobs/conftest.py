"""A Ray cluster shared by several tests, which join it as a user's command joins a running one."""

import importlib
import os
import subprocess
import sys

import pytest

from jobs.cli import command, environment
from tests.conftest import CORES, Done

environment.setup()  # before a test imports Ray

SERVE = f"""
import os, ray
os.sched_setaffinity(0, {CORES})
cluster = ray.init("local", num_cpus=2, log_to_driver=False)
print(cluster.address_info["gcs_address"], flush=True)
input()
ray.shutdown()
"""


@pytest.fixture(scope="session")
def cluster():
    """Address of the cluster, for RAY_ADDRESS: two cores, with token authentication."""
    kept = ("RAY_worker_niceness", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or k in kept}
    words = [sys.executable, "-c", SERVE]
    with subprocess.Popen(words, env=clean, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield address
        process.communicate("\n", timeout=60)


@pytest.fixture
def joined(cluster, monkeypatch):
    """Commands of this test join the running cluster."""
    monkeypatch.setenv("RAY_ADDRESS", cluster)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Run a verb in this process: for user errors, where starting a process would take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # or `main` would set it for later tests, too
    monkeypatch.setattr(command, "answer_interrupts", lambda: None)  # a second Ctrl-C would end the tests

    def run(name: str, *words: str) -> Done:
        module = importlib.import_module(f"jobs.{name}")
        with pytest.raises(SystemExit) as ended:
            command.main(module.VERB, getattr(module, name), words)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    return run
