"""Folders of class folders as they occur in practice."""

import os
from pathlib import Path

import pytest

from classifier.data.readers.folder import read_folder
from classifier.data.readers.source import Source
from classifier.data.split_names import TEST, TRAIN, UNASSIGNED, VALIDATION
from classifier.errors import DataError


def labels(source: Source) -> dict[str, str]:
    return {id_: source.class_names[k] for id_, k in zip(source.ids, source.labels_N.tolist(), strict=True)}


def splits(source: Source) -> dict[str, int]:
    return dict(zip(source.ids, source.splits_N.tolist(), strict=True))


def test_class_folders(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_folder(photos)
    assert source.name == "photos"
    assert source.class_names == ("cat", "dog")
    assert labels(source) == {f"{c}/{n:02d}.png": c for c in ("cat", "dog") for n in range(20)}
    assert set(source.splits_N.tolist()) == {UNASSIGNED}
    assert [Path(str(path)).relative_to(photos).as_posix() for path in source.images] == source.ids
    monkeypatch.chdir(photos)
    assert read_folder(Path(".")).name == "photos"


def test_hidden_and_other_files_are_ignored(photos: Path, paint) -> None:
    paint(photos / "cat" / "deep" / "deeper" / "a.JPG".lower()).rename(photos / "cat" / "deep" / "deeper" / "a.JPG")
    for other in ("notes.txt", "Thumbs.db", ".DS_Store", "table.csv"):
        (photos / "cat" / other).write_text("not an image")
        (photos / other).write_text("not an image")
    for hidden in (".hidden.png", ".cache/a.png", "__MACOSX/a.png", "@eaDir/a.png"):
        paint(photos / "dog" / hidden)
    for hidden in (".git/a.png", "__MACOSX/cat/a.png"):
        paint(photos / hidden)
    source = read_folder(photos)
    assert set(labels(source)) == set(labels(source)) & (
        {f"{c}/{n:02d}.png" for c in ("cat", "dog") for n in range(20)} | {"cat/deep/deeper/a.JPG"}
    )
    assert len(source.ids) == 41
    assert source.class_names == ("cat", "dog")


def test_links(photos: Path, tmp_path: Path, paint) -> None:
    """Links are followed, each folder once and without cycles; broken links are unreadable images."""
    (photos / "cat" / "loop").symlink_to(photos / "cat")
    (photos / "cat" / "up").symlink_to(photos)
    (photos / "loop").symlink_to(photos)
    (photos / "self").symlink_to(photos / "self")
    (photos / "dog" / "self.png").symlink_to(photos / "dog" / "self.png")
    (photos / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for number in range(3):
        paint(tmp_path / "elsewhere" / f"{number}.png")
    (photos / "bird").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(photos)
    for link in ("a", "b"):
        (photos / "dog" / link).symlink_to(tmp_path / "elsewhere")
    found = labels(read_folder(photos))
    assert {id_ for id_ in found if id_.startswith("cat")} == {f"cat/{n:02d}.png" for n in range(20)}
    assert {id_ for id_ in found if id_.startswith("bird")} == {f"bird/{n}.png" for n in range(3)}
    dogs = {id_ for id_ in found if id_.startswith("dog")} - {f"dog/{n:02d}.png" for n in range(20)}
    assert dogs == {"dog/gone.png", "dog/self.png", "dog/a/0.png", "dog/a/1.png", "dog/a/2.png"}


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Val"])
def test_split_folders(word: str, tmp_path: Path, paint) -> None:
    for split in ("train", word, "test"):
        for name in ("cat", "dog"):
            paint(tmp_path / split / name / "a.png")
    paint(tmp_path / "train" / "cat" / "more" / "b.png")
    source = read_folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert splits(source) == {
        "train/cat/a.png": TRAIN,
        "train/cat/more/b.png": TRAIN,
        "train/dog/a.png": TRAIN,
        f"{word}/cat/a.png": VALIDATION,
        f"{word}/dog/a.png": VALIDATION,
        "test/cat/a.png": TEST,
        "test/dog/a.png": TEST,
    }


def test_a_split_may_lack_a_class(tmp_path: Path, paint) -> None:
    for path in ("train/cat/a.png", "train/dog/a.png", "test/cat/a.png"):
        paint(tmp_path / path)
    (tmp_path / "test" / "dog").mkdir()
    assert splits(read_folder(tmp_path)) == {"train/cat/a.png": TRAIN, "train/dog/a.png": TRAIN, "test/cat/a.png": TEST}


def test_classes_named_like_splits(tmp_path: Path, paint) -> None:
    """A train is also a vehicle."""
    for name in ("train", "car", "test"):
        paint(tmp_path / name / "a.png")
    assert read_folder(tmp_path).class_names == ("car", "test", "train")
    paint(tmp_path / "train" / "steam" / "b.png")
    source = read_folder(tmp_path)
    assert source.class_names == ("car", "test", "train")
    assert labels(source)["train/steam/b.png"] == "train"


def test_only_the_requested_splits_are_read(tmp_path: Path, paint) -> None:
    for path in ("train/cat/a.png", "train/dog/a.png", "val/cat/a.png", "test/unknown.png"):
        paint(tmp_path / path)
    assert set(splits(read_folder(tmp_path, splits=(TRAIN, VALIDATION))).values()) == {TRAIN, VALIDATION}
    with pytest.raises(DataError, match=r"test has images without class folders, so without labels: sort"):
        read_folder(tmp_path)


def test_images_outside_class_folders_are_reported(photos: Path, paint) -> None:
    paint(photos / "stray.png")
    assert read_folder(photos).findings == ("1 images are in no class folder and were left out: stray.png.",)


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_folder(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors(tmp_path: Path, paint) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    refused(folder, "is empty: it needs one folder of images per class")
    (folder / "notes.txt").write_text("hello")
    refused(folder, r"has no images, only 1 \.txt \(notes\.txt\): it needs one folder of images per class")
    paint(folder / "a.png")
    refused(folder, "has images but no class folders: .*, or give notes.txt as the path if it lists their labels")

    folder = tmp_path / "hollow"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.txt").write_text("not an image")
    refused(folder, r"has no images in its class folders \(cat, dog\), only 2 \.txt \(cat/notes\.txt\): add some")
    paint(folder / "cat" / "a.png")
    refused(folder, r"the class folder 'dog' has no images, only 1 \.txt \(dog/notes\.txt\): add some, or remove it")
    (folder / "dog" / "notes.txt").unlink()
    refused(folder, "the class folder 'dog' has no images: add some, or remove it")

    folder = tmp_path / "alike"
    for name in ("cat", "Cat"):
        paint(folder / name / "a.png")
    refused(folder, "the class folders 'Cat' and 'cat' differ only by case")

    folder = tmp_path / "alike_across"
    for name in ("train/cat", "train/dog", "test/Cat", "test/dog"):
        paint(folder / name / "a.png")
    refused(folder, "the class folders 'Cat' and 'cat' differ only by case")

    folder = tmp_path / "trainless"
    for name in ("val/cat", "test/cat"):
        paint(folder / name / "a.png")
    refused(folder, "has test, val but no train: add train/ with class folders")

    folder = tmp_path / "mixed"
    for name in ("train/cat", "train/dog", "bird"):
        paint(folder / name / "a.png")
    refused(folder, "has train and also bird: put the class folders into train, val or test")

    folder = tmp_path / "twice"
    for name in ("train/cat", "train/dog", "val/cat", "valid/cat"):
        paint(folder / name / "a.png")
    refused(folder, "has val and valid, which mean the same: keep one")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_unreadable_folder(photos: Path) -> None:
    (photos / "cat").chmod(0)
    try:
        refused(photos, "cannot be read")
    finally:
        (photos / "cat").chmod(0o755)
