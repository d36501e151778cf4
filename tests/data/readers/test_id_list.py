"""Selection of images by a list of ids."""

from pathlib import Path

import numpy as np
import pytest

from classifier import data
from classifier.config.sections import DataConfig
from classifier.errors import DataError


def listed(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["id,label,split", *lines]))
    return str(path)


def test_labels_and_splits_come_from_the_list(tmp_path: Path) -> None:
    whole = data.open_source(DataConfig())
    lines = [
        f"{whole.ids[n]},{'even' if n % 2 == 0 else 'odd'},{('train', 'val', 'test', '')[n % 4]}" for n in range(80)
    ]
    found = data.open_source(DataConfig(only=listed(tmp_path / "some.csv", *reversed(lines))))
    assert found.class_names == ("even", "odd")
    assert list(found.ids) == list(whole.ids[:80])
    assert found.labels_N.tolist() == [n % 2 for n in range(80)]
    assert found.splits_N.tolist() == [0, 1, 2, -1] * 20
    np.testing.assert_array_equal(found.images, whole.images[:80])
    assert found.findings[-1] == "80 of its 1,797 images are used (data.only)."


def test_files_and_groups(photos: Path, tmp_path: Path) -> None:
    some = listed(tmp_path / "some.csv", "dog/01.png,dog,", "cat/02.png,cat,", "cat/00.png,cat,")
    found = data.open_source(DataConfig(path=str(photos), only=some, group=r"(\d)\.png"))
    assert list(found.ids) == ["cat/00.png", "cat/02.png", "dog/01.png"]
    assert [Path(str(file)).name for file in found.images] == ["00.png", "02.png", "01.png"]
    assert found.groups is not None
    assert len(found.groups) == 3


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (["cat/77.png,cat,"], r"line 2: photos has no image 'cat/77.png': remove the line"),
        (["cat/00.png,cat,", "cat/00.png,cat,"], r"line 3: 'cat/00.png' is listed already"),
        (["cat/00.png,cat,later"], r"line 2: unknown split 'later'"),
        (["cat/00.png,cat,", "dog/00.png,Cat,"], "differ only by case"),
        ([], "lists no images"),
    ],
)
def test_errors_name_the_line(lines: list[str], what: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        data.open_source(DataConfig(path=str(photos), only=listed(tmp_path / "some.csv", *lines)))


def test_rows_without_a_label_are_left_out_and_counted(photos: Path, tmp_path: Path) -> None:
    some = listed(tmp_path / "some.csv", "dog/01.png,dog,", "cat/02.png,,", "cat/00.png,cat,")
    found = data.open_source(DataConfig(path=str(photos), only=some))
    assert list(found.ids) == ["cat/00.png", "dog/01.png"]
    assert "1 images have no label and were left out: cat/02.png." in found.findings


def test_missing_list(photos: Path) -> None:
    with pytest.raises(DataError, match=r"data.only nowhere.csv does not exist"):
        data.open_source(DataConfig(path=str(photos), only="nowhere.csv"))
    with pytest.raises(DataError, match=r"is no ordinary file"):
        data.open_source(DataConfig(path=str(photos), only=str(photos)))
