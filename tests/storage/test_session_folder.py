"""Results that would be lost in Ray's session folder."""

from pathlib import Path

import pytest

import classifier
from classifier.errors import ConfigError
from classifier.storage.session_folder import find_lost_folder

SESSION = "/tmp/ray/session_2026-11-29_21-37-33_804484_744"
JOB = f"{SESSION}/runtime_resources/working_dir_files/_ray_pkg_bdafca260ad126e2"
CASES = [
    # cwd, out, resume, storage, the folder that would be lost
    (JOB, "runs", None, None, f"{JOB}/runs"),
    (JOB, "../runs", None, None, f"{SESSION}/runtime_resources/working_dir_files/runs"),
    (f"{JOB}/deeper", "runs", None, None, f"{JOB}/deeper/runs"),
    (JOB, "/shared/runs", None, None, None),
    (JOB, "../../../../runs", None, None, None),
    (JOB, "runs", None, "s3://bucket/runs", None),
    (JOB, "runs", None, "/shared/runs", None),
    (JOB, "runs", None, "copy", f"{JOB}/runs"),
    (JOB, "runs", "photos", None, f"{JOB}/runs/photos"),
    (JOB, "/shared/runs", "photos", None, None),
    (JOB, "runs", "/shared/runs/photos", None, None),
    (JOB, "runs", "photos", "s3://bucket/runs", None),
    ("/home/me/project", f"{JOB}/runs", None, None, f"{JOB}/runs"),
    ("/home/me/project", "runs", None, None, None),
    ("/home/me/session_1/runs", "runs", None, None, None),
    ("/home/me/runtime_resources", "runs", None, None, None),
    (f"/scratch/mine{JOB}", "runs", None, None, f"/scratch/mine{JOB}/runs"),  # ray start --temp-dir
]


@pytest.mark.parametrize(("cwd", "out", "resume", "storage", "lost"), CASES)
def test_where_results_would_be_lost(cwd, out, resume, storage, lost):
    found = find_lost_folder(Path(cwd), out, resume=resume, storage=storage)
    assert found == (None if lost is None else Path(lost))


def test_trainings_in_python_are_refused(tmp_path, monkeypatch):
    job = tmp_path / "session_2026-11-29" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    for train in (lambda: classifier.train("digits", progress=False), lambda: classifier.resume("runs/digits-1")):
        with pytest.raises(ConfigError, match="the results would be lost"):
            train()
    assert not list(job.iterdir())
