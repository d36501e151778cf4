"""The walk over folders: what it leaves out, and where it ends."""

import os
from pathlib import Path

import pytest

from classifier.data.readers.folder import read_folder
from classifier.data.readers.tree import DiskFolder, ListedFolder, Tree, is_hidden, leads_outside
from classifier.errors import DataError

LITTER = (
    *(".DS_Store", "._1.png", ".hidden/1.png", ".ipynb_checkpoints/1-checkpoint.png", ".Trash-1000/files/1.png"),
    *("__MACOSX/1.png", "@eaDir/1.png/SYNOPHOTO_THUMB_M.png", "$RECYCLE.BIN/1.png", "$Recycle.Bin/1.png"),
    *("System Volume Information/1.png", "lost+found/1.png", "#recycle/1.png", "@__thumb/1.png"),
    *("Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini", "Icon\r"),
)


def both(folder: Path, names: list[str]) -> list[Tree]:
    """A folder on disk with these files, and one that lists them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [DiskFolder(folder), ListedFolder(str(folder), ((name, folder / name) for name in names))]


def test_disk_and_archive_are_walked_alike(tmp_path: Path) -> None:
    names = ["cat/b.PNG", "cat/a.jpg", "cat/deep/er/c.png", "dog/1.heic", "dog/2.HEIC", "dog/3", "notes.txt", "z.png"]
    litter = [top + name for top in ("", "cat/", "cat/deep/") for name in LITTER]
    for tree in both(tmp_path / "set", names + litter):
        assert [id_ for id_, _ in tree.walk_image_files()] == ["z.png", "cat/a.jpg", "cat/b.PNG", "cat/deep/er/c.png"]
        assert [folder.name for folder in tree.folders] == ["cat", "dog"]
        assert tree.count_left_out() == {".heic": 2, "without an ending": 1, ".txt": 1}
        assert tree.folders[1].describe_others() == ", only 2 .heic, 1 without an ending (dog/1.heic)"
        assert [id_ for folder in tree.walk(0) for id_, _ in folder.other_files] == ["notes.txt"]


def test_runs_among_the_images_are_left_out(tmp_path: Path) -> None:
    runs = [
        "runs/a/run.log",
        "runs/a/result.json",
        "runs/a/maps/1.png",
        "runs/b/.lock",
        "runs/b/run.log",
        "m/bundle.json",
    ]
    names = ["cat/1.png", "dog/2.png", *runs, "m/model.safetensors", "m/1.png", "dog/run.log"]
    for tree in both(tmp_path / "set", names):
        assert [id_ for id_, _ in tree.walk_image_files()] == ["cat/1.png", "dog/2.png"]
        assert [folder.name for folder in tree.folders if folder.holds_runs_only] == ["runs"]
    source = read_folder(tmp_path / "set")
    assert source.class_names == ("cat", "dog")
    assert source.findings[-1] == "runs of this program were left out: m/, runs/a/, runs/b/."


def test_pipes_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")
    assert not DiskFolder(tmp_path).has_images
    assert DiskFolder(tmp_path).describe_left_out() == ["pipes and devices were left out, 1 in all."]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """One may have been a class folder; one with the ending of an image is an image that cannot be read."""
    for name in ("dog", "1.png"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    top = DiskFolder(tmp_path)
    assert [id_ for id_, _ in top.image_files] == ["1.png"]
    assert top.describe_left_out() == ["links that lead nowhere were left out, 1 in all."]


def test_depth_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 100 levels deep"):
        ListedFolder("set.zip", [("a/" * 20_000 + "1.png", tmp_path)])
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(400):  # deeper than any path can name
        os.mkdir("0123456789", dir_fd=folder)
        inner = os.open("0123456789", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(DataError, match="more than 100 levels deep"):
        list(DiskFolder(tmp_path).walk())


def test_long_paths_are_refused(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("x" * 200, dir_fd=folder)
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(DataError, match="cannot be read"):
        list(DiskFolder(tmp_path).walk())


def test_hidden_names_and_paths() -> None:
    assert all(map(is_hidden, LITTER))
    assert not any(map(is_hidden, ("cat", "a.b/c.png", "thumbs", "recycle", "icon", "@home", "~")))


def test_links_may_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    (tmp_path / "set" / "cat" / "1.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "set" / "up").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "2.png").symlink_to("cat/../2b.png")
    for path, is_outside in (
        ("cat/1.png", True),
        ("up/secret.png", True),
        ("../x", True),
        ("2.png", False),
        ("new", False),
    ):
        assert leads_outside(tmp_path / "set" / path, tmp_path / "set") == is_outside
        assert leads_outside(tmp_path / "alias" / path, tmp_path / "alias") == is_outside


def test_class_folders_called_like_those_of_runs(tmp_path: Path, paint) -> None:
    for name in ("bundle", "checkpoints"):
        paint(tmp_path / "set" / name / "1.png")
    assert read_folder(tmp_path).class_names == ("bundle", "checkpoints")
