"""Versions that come and go: no request is lost, and what answers otherwise is rolled back."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from classifier.bundle.predictor import Judgement, Predictor
from classifier.errors import RunError
from classifier.serve.bounds import Bounds
from classifier.serve.registry import Source
from classifier.serve.rollout import RolloutBounds
from tests.serve.conftest import Running, encode, start, stop

IMAGE = encode()


class Other(Predictor):
    """Changed answers, errors or seconds, of versions after the first."""

    change = ""

    def judge(self, images_NCHW, columns_NF=None) -> Judgement:
        judgement = super().judge(images_NCHW)
        if self.change == "fails" and images_NCHW.any():  # a warm-up has no pixels
            raise ValueError("broken")
        if self.change == "is slow":
            time.sleep(0.05)
        if self.change == "disagrees":
            return judgement._replace(probabilities_NK=1 - judgement.probabilities_NK)
        return judgement


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def touch(folder: Path) -> None:
    """Change a bundle as a new training would: its documents have other bytes."""
    with (folder / "bundle.json").open("a") as file:
        file.write(" ")


def ask_until(server: Running, is_done: threading.Event, statuses: list[int]) -> None:
    while not is_done.is_set():
        statuses.append(server.ask("/predict", IMAGE)[0])


@pytest.mark.parametrize("count", [5, pytest.param(1000, marks=pytest.mark.slow)])
def test_versions_are_swapped_under_load_without_losing_a_request(count: int, copy: Path):
    server = start([Source("waves", copy)])
    is_done, statuses = threading.Event(), list[int]()
    threads = [threading.Thread(target=ask_until, args=(server, is_done, statuses)) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(count):
            touch(copy)
            assert len(server.run(server.app.registry.reload())) == 1
        (copy / "bundle.json").write_text("{")  # a damaged one changes nothing
        assert server.run(server.app.registry.reload()) == []
        with pytest.raises(RunError):
            server.run(server.app.registry.reload(["waves"]))
        version = server.ask("/predict", IMAGE)[1]["version"]
    finally:
        is_done.set()
        for thread in threads:
            thread.join()
        stop(server)
    assert version == str(count + 1)
    assert len(statuses) > 20
    assert set(statuses) == {200}
    assert len(server.lines("switched")) == count
    assert server.lines("load_failed")


def test_several_versions_of_a_model_are_served_side_by_side(bundle: Path, copy: Path):
    server = start([Source("waves", copy), Source("waves", bundle)])
    try:
        assert [server.ask(f"/predict?version={n}", IMAGE)[0] for n in (1, 2, 3)] == [200, 200, 404]
        assert server.ask("/predict", IMAGE)[1]["version"] == "2"
        touch(copy)
        assert server.run(server.app.registry.reload()) == ["waves:3"]
        assert server.ask("/v2/models/waves")[1]["versions"] == ["3", "2"]
        assert server.ask("/predict", IMAGE)[1]["version"] == "2"  # still the last one of those that were given
    finally:
        stop(server)


@pytest.mark.parametrize("is_shadow", [False, True], ids=["canary", "shadow"])
@pytest.mark.parametrize("change", ["fails", "disagrees", "is slow", ""])
def test_a_new_version_is_tried_first_and_rolled_back_if_it_is_worse(change: str, is_shadow: bool, copy: Path):
    opened: list[Other] = []

    def open_predictor(path: Path) -> Predictor:
        opened.append(Other(path, threads=1))
        opened[-1].change = change if len(opened) > 1 else ""
        return opened[-1]

    rollout = RolloutBounds(share=0.5, is_shadow=is_shadow, requests=6, max_slowdown=3 if change else 100)
    server = start([Source("waves", copy)], open_predictor=open_predictor, rollout=rollout)
    try:
        before = server.ask("/predict", IMAGE)[1]["predictions"]
        touch(copy)
        for expected in (["waves:2"], []):  # the second time, it is the one that is tried
            assert server.run(server.app.registry.reload()) == expected
        answers = []
        while len(answers) < 40 and server.app.registry.models["waves"].trial:
            answers.append(server.ask("/predict", IMAGE))
        after = server.ask("/predict", IMAGE)[1]
        assert server.run(server.app.registry.reload()) == []  # nor is it tried again
    finally:
        stop(server)
    assert {status for status, _, _ in answers} == {200}
    assert after["version"] == ("1" if change else "2")
    [line] = server.lines("rolled_back" if change else "accepted")
    reason = {"fails": "failed", "disagrees": "disagreed", "is slow": "times as long", "": "compared"}[change]
    assert reason in line["reason"]
    versions = {answer["version"] for _, answer, _ in answers[:-1]}  # the trial may have ended before the last
    if change != "disagrees":  # the first disagreement is one too many
        assert versions == ({"1"} if is_shadow or change == "fails" else {"1", "2"})
    if change != "disagrees" or is_shadow:
        assert all(answer["predictions"] == before for _, answer, _ in answers[:-1])


def test_a_server_that_drains_is_unready_and_answers_to_the_end(bundle: Path):
    server = start([Source("waves", bundle)], bounds=Bounds(deadline_seconds=20))
    server.server.drain_seconds = 1.0
    ending = threading.Thread(target=stop, args=(server,))
    ending.start()
    try:
        while server.app.registry.is_ready:
            time.sleep(0.01)
        assert server.ask("/v2/health/ready")[0] == 503
        assert server.ask("/v2/health/live")[0] == 200
        status, _, headers = server.ask("/predict", IMAGE)
        assert (status, headers["connection"]) == (200, "close")
    finally:
        ending.join()
