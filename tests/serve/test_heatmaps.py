"""Heatmaps, from a process of their own that may be killed, and that knows which model has answered."""

from pathlib import Path

import psutil
import pytest

from classifier.serve.page import heatmaps
from classifier.serve.registry import Source
from tests.serve.conftest import Running, encode, start, stop

IMAGE = encode()
pytestmark = pytest.mark.long


def ask(server: Running) -> tuple[int, str]:
    status, answer, _ = server.ask("/predict?maps=true", IMAGE)
    return status, answer.get("error", "")


def test_the_process_may_die_idle_or_meet_another_model(bundle: Path, monkeypatch):
    server = start([Source("waves", bundle)], has_maps=True)
    own = {one.pid for one in psutil.Process().children()}

    def processes() -> list[psutil.Process]:
        return [one for one in psutil.Process().children() if one.pid not in own and "spawn_main" in str(one.cmdline())]

    try:
        assert server.ask("/predict", IMAGE)[0] == 200
        assert processes() == []
        assert ask(server) == (200, "")
        [process] = processes()
        process.kill()
        process.wait(20)
        status, error = ask(server)
        assert status == 503
        assert "ended" in error
        monkeypatch.setattr(heatmaps, "IDLE_SECONDS", 0.5)
        assert ask(server) == (200, "")
        [process] = processes()
        process.wait(20)
        version = server.app.registry.models["waves"].current
        version.digest = "of another one"
        status, error = ask(server)
        assert status == 409
        assert "changed on disk" in error
    finally:
        stop(server)
