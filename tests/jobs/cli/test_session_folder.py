"""Verbs whose results would be lost in Ray's session folder."""

from pathlib import Path

import pytest


@pytest.fixture
def job(here, tmp_path, monkeypatch) -> Path:
    """The folder in which Ray would start a job; verbs run in it."""
    folder = tmp_path / "session_2026-11-29" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


BOTH = ["--out", "--storage"]


@pytest.mark.parametrize(
    ("verb", "flags"), [("train", BOTH), ("tune", BOTH), ("crossval", ["--out"]), ("curve", ["--out"])]
)
def test_a_training_is_refused_before_it_starts(here, job, verb, flags):
    done = here(verb)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"{job}/runs is in the session folder" in done.err
    assert [flag for flag in BOTH if f"{flag} to" in done.err] == flags
    assert not (job / "runs").exists()


def test_what_trains_nothing_is_not_refused(here, job):
    assert here("train", "--dry_run").code == 0
    (job / "runs").mkdir()
    assert here("runs").code == 0
