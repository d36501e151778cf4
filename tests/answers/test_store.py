"""Parts are there or not, belong to one model and its settings, and are written by one process at a time."""

import json
from pathlib import Path

import pytest

from classifier.answers.listing import ListedImage, Part
from classifier.answers.store import DOCUMENT, AnswerStore, Settings
from classifier.errors import ConfigError, RunError

SETTINGS = Settings(
    model="0a",
    engine="onnx fp32",
    format="csv",
    part_size=2,
    top=5,
    probabilities=False,
    features=False,
    limits={},
    inputs=["photos"],
)


def make_part(number: int, fingerprint: str = "f") -> Part:
    return Part(number, [ListedImage(f"{number}.png", Path(f"{number}.png"))], fingerprint)


def fill(path: str, parts: int) -> AnswerStore:
    store = AnswerStore(path, SETTINGS)
    with store.lock():
        store.open(("a", "b"), "runs/A")
        for number in range(parts):
            store.commit(make_part(number), 0, lambda path: path.write_text("answers\n"))
    return store


@pytest.fixture(params=["folder", "s3"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder for answers that is not there yet, on disk or in storage."""
    if request.param == "folder":
        return str(tmp_path / "new" / "answers")
    before, after = request.getfixturevalue("bucket")
    return f"{before}/answers{after}"


def test_parts_are_found_until_their_images_or_their_file_change(path: str) -> None:
    store = fill(path, 3)
    again = AnswerStore(path, SETTINGS)
    with again.lock():
        again.open(("a", "b"), "runs/A")
        found = again.find(make_part(1))
        assert found is not None
        assert (found["images"], found["unreadable"], found["bytes"]) == (1, 0, 8)
        assert again.find(make_part(1, "other")) is None
        assert again.find(make_part(3)) is None
        store.folder.put(store.file_name(0), lambda path: path.write_text("cut"))
        assert again.find(make_part(0)) is None
        store.folder.put("_parts/00002.json", lambda path: path.write_text("{"))
        assert again.find(make_part(2)) is None
        assert again.finish(("a", "b"), "runs/A", parts=1, images=1, unreadable=0) == 2
    assert store.folder.list_files("_parts") == ["00000.json"]
    content = store.folder.read(DOCUMENT)
    assert content is not None
    document = json.loads(content)
    assert (document["is_finished"], document["parts"], document["class_names"]) == (True, 1, ["a", "b"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "0b"}, "of another model"),
        ({"engine": "torch fp32 on cpu"}, "of another engine"),
        ({"inputs": ["elsewhere"]}, "to other images"),
        ({"top": 3}, r"of other settings \(top 5, not 3\)"),
        ({"limits": {"max_pixels": 7}}, "of other settings"),
    ],
)
def test_answers_of_others_are_kept_apart(path: str, changes: dict, message: str) -> None:
    fill(path, 1)
    other = AnswerStore(path, Settings(**{**SETTINGS, **changes}))
    with other.lock(), pytest.raises(RunError, match=message):
        other.open(("a", "b"), "runs/B")


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="has files, but no answers"):
        fill(str(tmp_path), 1)
    with pytest.raises(RunError, match="cannot be read or written"):
        fill(str(tmp_path / "mine.txt"), 1)
    (tmp_path / DOCUMENT).write_text('{"format_version": 1}')
    with pytest.raises(RunError, match="is corrupted"):
        fill(str(tmp_path), 1)
    with pytest.raises(ConfigError, match="credentials"):
        AnswerStore("s3://me:secret@bucket/answers", SETTINGS)


def test_one_process_writes_and_cleans_up_after_those_that_were_killed(tmp_path: Path) -> None:
    fill(str(tmp_path), 1)
    left = [tmp_path / ".part-00001.csv.1f.part", tmp_path / "_parts" / ".00001.json.1f.part"]
    for file in left:
        file.write_text("half")
    one, other = AnswerStore(str(tmp_path), SETTINGS), AnswerStore(str(tmp_path), SETTINGS)
    with one.lock():
        assert not any(file.exists() for file in left)
        with pytest.raises(RunError, match=r"process \d+ is writing to"), other.lock():
            pass
    with other.lock():
        pass
