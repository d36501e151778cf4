"""PNG files: confusion matrix, learning curves, augmented images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.report.charts import plot_by_epoch, shorten
from classifier.report.figure import (
    COLOURS,
    FAINT,
    HEIGHT,
    INK,
    POINTS_PER_INCH,
    TEXT_SIZE,
    WIDTH,
    create_figure,
    save_png,
    style_axes,
)
from classifier.text import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NUMBERED_CLASSES = 30  # with more, a count would not fit its cell
MAX_NAMED_CLASSES = 120  # with more, only every second, third... class is labelled
MAX_NAME_LENGTH = 24
# The side of an image in a grid, in points.
IMAGE_SIZE = 83


def draw_confusion_matrix(confusion_KK: Any, class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix of counts: rows are true classes, columns predictions, colours shares of the row.

    Correct predictions are blue, errors orange; the colour grows with the square root of the share, so that one error
    in a hundred is visible. RunError if the file cannot be written.
    """
    from matplotlib.colors import LinearSegmentedColormap

    counts_KK = np.asarray(confusion_KK, dtype=np.int64)
    classes, total = len(counts_KK), int(counts_KK.sum())
    share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    strength_KK = np.sqrt(share_KK)
    blue, orange = (LinearSegmentedColormap.from_list("", ["white", COLOURS[name]]) for name in ("blue", "orange"))
    cells_KK4 = np.where(np.eye(classes, dtype=bool)[:, :, None], blue(strength_KK), orange(strength_KK))

    cell_inches = min(0.62, max(0.15, 6.5 / classes)) if classes <= MAX_NAMED_CLASSES else 12 / classes
    side = max(2.4, classes * cell_inches)
    figure = create_figure(POINTS_PER_INCH * (side + 2.2), POINTS_PER_INCH * (side + 2.0))
    axes = figure.add_subplot()
    axes.imshow(cells_KK4, interpolation="nearest")
    if classes <= MAX_NUMBERED_CLASSES:
        size = min(10.0, 72 * cell_inches / (0.75 * max(2, len(str(counts_KK.max())))))
        for row, column in zip(*np.nonzero(counts_KK), strict=True):
            ink = "white" if strength_KK[row, column] > 0.7 else INK
            axes.text(column, row, str(counts_KK[row, column]), ha="center", va="center", color=ink, fontsize=size)
    _name_classes(axes, class_names, size=min(10.0, max(5.0, 62 * cell_inches)))
    axes.set_xlabel("predicted class", color=INK)
    axes.set_ylabel("true class", color=INK)
    title = f"{total:,} images" + (f", accuracy {np.trace(counts_KK) / total:.2%}" if total else "")
    axes.set_title(title, color=INK, fontsize=12, pad=10)
    save_png(figure, path)


def draw_learning_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw training and validation loss and accuracy by epoch, with the saved epoch marked.

    rows: the lines of history.jsonl. RunError if the file cannot be written.
    """
    figure = create_figure(2 * 1.15 * WIDTH, 1.15 * HEIGHT)
    for axes, score in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        style_axes(axes, "epoch", score)
        plot_by_epoch(axes, rows, score)
        if rows:
            axes.legend(frameon=False, loc="best", fontsize=TEXT_SIZE - 2, labelcolor=INK)
    save_png(figure, path)


def draw_image_grid(rows: Sequence[tuple[str, Sequence[Any]]], path: Path) -> None:
    """Draw a row of images for each label: the original first, then augmented ones.

    An image is C x H x W with 1 or 3 channels: uint8, or floating point in [0, 1]. RunError as above.
    """
    columns = max((len(images) for _, images in rows), default=1)
    figure = create_figure(IMAGE_SIZE * columns + 86, IMAGE_SIZE * max(1, len(rows)) + 29)
    grid = figure.subplots(max(1, len(rows)), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (label, images) in zip(grid, rows, strict=False):
        for axes, image in zip(line, images, strict=False):
            pixels_HWC = np.asarray(image).transpose(1, 2, 0)
            pixels_HWC = pixels_HWC if pixels_HWC.dtype == np.uint8 else pixels_HWC.clip(0, 1)
            axes.imshow(np.repeat(pixels_HWC, 3, axis=2) if pixels_HWC.shape[2] == 1 else pixels_HWC)
        text = shorten(show(label), MAX_NAME_LENGTH)
        line[0].text(-0.08, 0.5, text, transform=line[0].transAxes, ha="right", va="center")
    if rows:
        grid[0, 0].set_title("original", fontsize=10, color=INK)
    if rows and columns > 1:
        grid[0, 1].set_title("augmented", fontsize=10, color=INK, loc="left")
    save_png(figure, path)


def _name_classes(axes: "Axes", class_names: Sequence[str], size: float) -> None:
    """Label both axes of the matrix with class names, horizontally if they are short and few enough."""
    every = math.ceil(len(class_names) / MAX_NAMED_CLASSES)
    positions = list(range(0, len(class_names), every))
    names = [shorten(show(class_names[position]), MAX_NAME_LENGTH) for position in positions]
    is_horizontal = len(names) <= 15 and max(map(len, names), default=0) <= 4
    axes.set_xticks(positions, names, fontsize=size, rotation=0 if is_horizontal else 90)
    axes.set_yticks(positions, names, fontsize=size)
    on_all_edges = len(names) > MAX_NUMBERED_CLASSES  # a large matrix is hard to follow from cell to edge
    axes.tick_params(length=0, colors=INK, labelright=on_all_edges, labeltop=on_all_edges)
    axes.spines[:].set_color(FAINT)
