"""Sessions: what a run decides at its start is kept when it is resumed."""

import gc

import pytest
import torch

from classifier.runtime import threads
from jobs.cli.verb import Request, TrainingOptions
from jobs.steps.session import open_session


@pytest.mark.parametrize("kind", ["train", "tune"])
def test_a_resumed_run_has_the_threads_that_were_free_at_its_start(kind, tmp_path, monkeypatch):
    def session_threads(free: int, options: TrainingOptions, changes: dict) -> tuple[int | None, int]:
        monkeypatch.setattr(threads, "choose_threads", lambda load, setting: (free, None))
        with open_session(kind, Request(options, changes)) as session:
            return session.experiment.train.threads, torch.get_num_threads()

    gc.collect()  # a training that another test has left in the middle restores its threads when it is collected
    before = torch.get_num_threads()
    new, resumed = TrainingOptions(out=str(tmp_path), name="a"), TrainingOptions(resume=str(tmp_path / "a"))
    assert session_threads(3, new, {"data.path": "digits"}) == (3, 3)
    assert torch.get_num_threads() == before
    assert session_threads(1, resumed, {}) == (3, 3)
    own = TrainingOptions(out=str(tmp_path), name="b")
    assert session_threads(1, own, {"data.path": "digits", "train.threads": 2}) == (2, 2)
