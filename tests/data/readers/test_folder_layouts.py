"""Layouts of folders as they occur: which folders are splits, and which are classes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from classifier.data.readers.folder import read_tree
from classifier.data.readers.tree import ListedFolder
from classifier.errors import DataError


def read(files: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return the images by split and class, such as {"train": "cat dog"}, and the findings."""
    source = read_tree(ListedFolder("photos", ((name, Path(name)) for name in files.split())), "photos")
    found: dict[str, set[str]] = {}
    for label, split in zip(source.labels_N.tolist(), source.splits_N.tolist(), strict=True):
        found.setdefault(("train", "validation", "test", "any")[split], set()).add(source.class_names[label])
    return {split: " ".join(sorted(names)) for split, names in found.items()}, source.findings


def fill(*names: str) -> str:
    """Images of a cat and a dog in each of these folders."""
    return " ".join(f"{name}/{kind}/{n}.png" for n, name in enumerate(names) for kind in ("cat", "dog"))


BOTH = "cat dog"


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("train", "test", "test"),
        ("training", "testing", "test"),
        ("Training", "Validation", "validation"),
        ("TRAIN", "dev", "validation"),
        ("train", "eval", "test"),
        ("trainset", "testset", "test"),
        ("train_images", "test_images", "test"),
        ("train2017", "val2017", "validation"),
        ("Training Set", "Test Set", "test"),
        ("seg_train", "seg_test", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train/train", "test", "test"),
        ("train/images", "test/images", "test"),
        ("train/images", "test", "test"),
        ("outer/train", "outer/val", "validation"),
        ("a/b/training", "a/b/valid", "validation"),
    ],
)
def test_splits(train: str, other: str, split: str) -> None:
    train, other = train.replace(" ", "-"), other.replace(" ", "-")
    found, findings = read(f"{fill(train, other)} notes.txt __MACOSX/x/y.png")
    assert found == {"train": BOTH, split: BOTH}
    is_usual = train.lower() in ("train", "outer/train")
    assert (f"{train}/ is its train split" in " ".join(findings)) != is_usual


def test_three_splits_with_eval() -> None:
    assert read(fill("train", "eval", "test"))[0] == {"train": BOTH, "validation": BOTH, "test": BOTH}
    assert read(fill("train", "dev", "eval"))[0] == {"train": BOTH, "validation": BOTH, "test": BOTH}


def test_splits_inside_classes() -> None:
    found, findings = read("cat/train/1.png cat/test/2.png dog/train/3.png dog/test/deep/4.png")
    assert found == {"train": BOTH, "test": BOTH}
    assert "train/ in its class folders is its train split" in findings[0]


@pytest.mark.parametrize(
    "files",
    [
        "train/1.png tram/2.png bus/3.png",
        "train/1.png car/2.png test/3.png",
        "train/1.png train/steam/2.png car/3.png test/4.png",
        "train_station/1.png test_tube/2.png",
        "steam_train/1.png bullet_train/2.png airport/3.png",
        "train_station/day/1.png train_station/night/2.png airport/day/3.png",
        "training_shoes/1.png boots/2.png",
        "dev_board/1.png eval_board/2.png test_board/3.png",
        "vehicles/train/1.png vehicles/car/2.png animals/cat/3.png",
    ],
)
def test_classes_that_are_called_like_splits_or_merely_contain_such_a_word(files: str) -> None:
    assert read(files)[0] == {"any": " ".join(sorted({name.partition("/")[0] for name in files.split()}))}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ("train/1.png test/2.png", "photos/test has images without class folders, so without labels"),
        ("train/train/1.png test/test/2.png", "photos/test/test has images without class folders"),
        (f"{fill('seg_train')} seg_test/1.png", "photos/seg_test has images without class folders"),
        (f"{fill('seg_train/seg_train', 'seg_test/seg_test')} seg_pred/seg_pred/1.png", "and also seg_pred"),
        (fill("x_train/x_train") + " x_test/x_test/1.png", "photos/x_test/x_test has images without class folders"),
        (fill("train", "training"), "has train and training, which mean the same"),
        (fill("train", "eval", "test", "val"), "has eval and val, which mean the same"),
        ("trainA/1.png trainB/2.png testA/3.png testB/4.png", "testA and testB"),
        (fill("test", "lernen"), "test, lernen hold folders of the same names"),
        (fill("seg_train", "test"), "seg_train, test hold folders of the same names"),
        (fill("kaggle_train", "my_hold_out"), "kaggle_train, my_hold_out hold folders of the same names"),
        (
            "cat/train/1.png cat/test/2.png dog/3.png",
            "photos/cat is divided into test, train, but dog has images in no",
        ),
        (
            f"{fill('train')} test/1.heic",
            r"photos/test has no images, only 1 \.heic \(test/1\.heic\): add some, or move",
        ),
        (fill("test"), "has test but no train"),
    ],
)
def test_unclear_layouts_are_refused_with_the_names_of_the_folders(files: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(files)


def test_an_outer_folder_is_stepped_into() -> None:
    found, findings = read("outer/inner/cat/1.png outer/inner/dog/2.png outer/readme.md .DS_Store")
    assert found == {"any": BOTH}
    assert findings == (
        "its classes are the folders in outer/inner/.",
        "files were left out because of their endings: 1 .md.",
    )
    found, findings = read("cover.png outer/cat/1.png outer/dog/2.png outer/3.png")
    assert found == {"any": BOTH}
    assert findings == (
        "its classes are the folders in outer/.",
        "2 images are in no class folder and were left out: cover.png, outer/3.png.",
    )
    assert read("cat/1.png cat/small/2.png")[0] == {"any": "cat"}
    with pytest.raises(DataError, match="class folder 'dog' has no images, only 2"):
        read("cat/indoors/1.png cat/outdoors/2.png dog/1.heic dog/2.heic")  # cat is no outer folder


def test_classes_that_hold_the_same_folders_are_told() -> None:
    found, [finding] = read(fill("prueba", "entrenamiento"))
    assert found == {"any": "entrenamiento prueba"}
    assert "its classes are the folders entrenamiento, prueba, each of which holds cat, dog: if these are" in finding
    assert read(fill("prueba", "entrenamiento") + " prueba/1.png")[1] == ()
