"""Where the data of a run are, seen from another folder or after they were moved."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from classifier.config.sections import DataConfig
from classifier.errors import DataError, RunError
from classifier.runs.data_location import check_same_data, find_data, write_location


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was started in tmp_path/home, where photos, sets/ and list.csv are; now we are elsewhere."""
    for name in ("home/photos", "home/sets", "elsewhere", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "list.csv").touch()
    monkeypatch.chdir(tmp_path / "home")
    for path in ("photos", "sets"):
        write_location(tmp_path / "run", DataConfig(path=path), "1234")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run"


def dataset(fingerprint: str) -> Any:
    return cast("Any", SimpleNamespace(fingerprint=fingerprint, name="photos"))


def test_relative_paths_are_found_from_elsewhere(run: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = find_data(DataConfig(path="photos", root="sets", only="list.csv"), run)
    assert (found.path, found.root, found.only) == (str(home / "photos"), str(home / "sets"), str(home / "list.csv"))
    (tmp_path / "elsewhere" / "photos").mkdir()  # what is here comes first, as for any relative path
    assert find_data(DataConfig(path="photos"), run).path == "photos"
    for path in ("s3://bucket/photos", str(home / "photos")):
        assert find_data(DataConfig(path=path), run).path == path
    (home / "train-000.tar").touch()
    assert find_data(DataConfig(path="train-{000..000}.tar"), run).path == str(home / "train-{000..000}.tar")


def test_data_are_found_where_they_have_been(run: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert find_data(DataConfig(path="pictures"), run).path == str(home / "sets")  # the latest
    (home / "sets").rmdir()
    assert find_data(DataConfig(path=str(home / "sets")), run).path == str(home / "photos")
    (home / "photos").rmdir()
    assert find_data(DataConfig(path="cifar10"), run).path == "cifar10"


def test_missing_data_are_refused_with_where_they_were_sought(run: Path, tmp_path: Path) -> None:
    for name in ("photos", "sets"):
        (tmp_path / "home" / name).rmdir()
    with pytest.raises(DataError) as caught:
        find_data(DataConfig(path="pictures"), run)
    here, home = tmp_path / "elsewhere", tmp_path / "home"
    where = f"in {here}, nor in {home}, where the run was started"
    assert str(caught.value) == f"pictures does not exist {where}: give their new path by --data"
    (home / "pictures").mkdir()
    with pytest.raises(DataError, match=f"pictures does not exist in {here}: give"):
        find_data(DataConfig(path="pictures"), run, is_new_path=True)
    with pytest.raises(DataError, match=r"/gone does not exist: move them back"):
        find_data(DataConfig(path="/gone"), run, "move them back")
    (run / "data.json").unlink()  # a run of an earlier version
    with pytest.raises(DataError, match=f"photos does not exist in {here}: give"):
        find_data(DataConfig(path="photos"), run)


def test_other_data_are_refused(run: Path) -> None:
    check_same_data(run, dataset("1234"))
    with pytest.raises(RunError, match="was started on other images, labels or splits than photos has now"):
        check_same_data(run, dataset("5678"))
    (run / "data.json").write_text("[]")
    with pytest.raises(RunError, match=r"data\.json is corrupted"):
        check_same_data(run, dataset("1234"))
