"""PNG figures are drawn for every kind of run, without warnings and without pyplot."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classifier.errors import RunError
from classifier.report import png
from tests.report.run_files import history_row

NAMES = {
    2: ("cat", "dog"),
    5: ("$x_1$ and $y", "a very long name that ends in one", "a very long name that ends in two", "お", "line\nbreak"),
    12: tuple("abcdefghijkl"),
    100: tuple(f"class {k}" for k in range(100)),
    300: tuple(f"class {k}" for k in range(300)),
}


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("classes", NAMES)
def test_confusion_matrix_of_any_size(classes: int, tmp_path: Path) -> None:
    confusion_KK = 10 * np.eye(classes, dtype=int)
    confusion_KK[0, 1] = 3
    png.draw_confusion_matrix(confusion_KK, NAMES[classes], tmp_path / "confusion.png")
    pixels = read_png(tmp_path / "confusion.png")
    assert 250 < len(pixels) < 2500
    blue, red = pixels[..., 2] - pixels[..., 0], pixels[..., 0] - pixels[..., 2]
    assert (blue > 80).sum() >= classes, "the diagonal is blue"
    assert (red > 40).sum() >= 1, "the error is orange"
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]


def test_class_names_that_no_font_can_draw(tmp_path: Path) -> None:
    png.draw_confusion_matrix(np.eye(3, dtype=int), ("\udcff\udcfe", "a\nb", "$x"), tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").is_file()


def test_confusion_matrix_as_lists_and_without_images(tmp_path: Path) -> None:
    png.draw_confusion_matrix([[0, 0], [0, 0]], ["a", "b"], tmp_path / "empty.png")
    assert read_png(tmp_path / "empty.png").size


def test_colour_grows_with_the_share_of_the_row(tmp_path: Path) -> None:
    rare, often = (np.array([[100 - n, n], [0, 100]]) for n in (1, 40))
    png.draw_confusion_matrix(rare, ["a", "b"], tmp_path / "rare.png")
    png.draw_confusion_matrix(often, ["a", "b"], tmp_path / "often.png")
    orange = [
        (read_png(tmp_path / n)[..., 0] - read_png(tmp_path / n)[..., 2]).max() for n in ("rare.png", "often.png")
    ]
    assert 10 < orange[0] < orange[1]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [history_row(1)],
        [history_row(1, validated=False, best=False)],
        [history_row(e, validated=e % 2 == 0, best=e == 4) for e in range(1, 8)],
        [history_row(e) for e in range(1, 60)],
    ],
    ids=["none", "one", "never-validated", "gaps", "many"],
)
def test_curves_of_any_history(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    png.draw_learning_curves(rows, tmp_path / "curves.png")
    height, width, _ = read_png(tmp_path / "curves.png").shape
    assert width > 2 * height


def test_grid_of_original_and_augmented_images(tmp_path: Path) -> None:
    red, grey = np.zeros((3, 8, 8), np.uint8), torch.full((1, 8, 8), 1.5)
    red[0] = 255
    png.draw_image_grid([("$red$", [red, red / 255]), ("grey", [grey])], tmp_path / "grid.png")
    pixels = read_png(tmp_path / "grid.png")
    assert (pixels == [255, 0, 0]).all(-1).sum() > 2 * 80 * 80
    png.draw_image_grid([], tmp_path / "empty.png")
    assert read_png(tmp_path / "empty.png").size


def test_missing_folder_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gone"):
        png.draw_learning_curves([], tmp_path / "gone" / "curves.png")


def test_pyplot_is_never_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from classifier.report import png
assert "matplotlib" not in sys.modules
png.draw_confusion_matrix([[1, 0], [0, 1]], "ab", Path({str(tmp_path)!r}) / "c.png")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
