"""Default names are the data set's with the next free number, also for processes that start at once."""

import subprocess
import sys

import pytest

from classifier.errors import RunError
from classifier.runs.folder import RunFolder
from classifier.runs.names import data_name, natural_key, numbered_names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("photos", "photos"),
        ("some/photos/", "photos"),
        ("photos.zip", "photos"),
        ("s3://bucket/photos?scheme=http&endpoint_override=127.0.0.1:80", "photos"),
        ("s3://bucket", "bucket"),
        ("my photos (old)", "my-photos-old"),
        ("train-{000..099}.tar", "train-000-099"),
        ("_hidden", "hidden"),
        ("фото", "data"),
        ("/", "data"),
        ("x" * 200, "x" * 40),
    ],
)
def test_a_data_set_has_a_name_that_a_run_can_have(path, name, tmp_path):
    assert data_name(path) == name
    RunFolder.create_numbered(tmp_path, path).close()
    assert (tmp_path / f"{name}-1").is_dir()


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert data_name(".") == data_name("./") == "photos"


def test_numbers_follow_the_highest(tmp_path):
    for name in ("photos-2", "photos-10", "photos-x", "photos", "others-70", "train-photos-20261125-100535"):
        (tmp_path / name).mkdir()
    assert next(numbered_names(tmp_path, "photos")) == "photos-11"
    assert next(numbered_names(tmp_path, "photos", reserved=["photos-30", "others-90"])) == "photos-31"
    assert next(numbered_names(tmp_path / "absent", "photos")) == "photos-1"
    (tmp_path / "photos-2").rmdir()
    assert next(numbered_names(tmp_path, "photos")) == "photos-11"  # a new run never sorts before an older one


def test_names_sort_by_their_numbers():
    names = ["photos-10", "photos-9", "digits-2", "photos-9-refit", "train-photos-20261125-100535", "photos"]
    assert sorted(names, key=natural_key) == [
        "digits-2", "photos", "photos-9", "photos-9-refit", "photos-10", "train-photos-20261125-100535",
    ]  # fmt: skip


def test_processes_that_start_at_once_get_different_numbers(tmp_path):
    code = """
import sys
from classifier.runs.folder import RunFolder
print(flush=True)
input()
runs = [RunFolder.create_numbered(sys.argv[1], "photos") for _ in range(20)]
print(*(run.folder.name for run in runs))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported everything
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert sorted(names, key=natural_key) == [f"photos-{n}" for n in range(1, 81)]


def test_a_folder_that_cannot_be_created_is_an_error_and_no_endless_search(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be created.*--out"):
        RunFolder.create_numbered(tmp_path / "file", "photos")
