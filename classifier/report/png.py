"""PNG figures: confusion matrix, learning curves, augmented images.

Matplotlib is used without pyplot: no global state is changed, and no window is opened.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Blue and orange are distinguishable with every kind of colour blindness.
BLUE, ORANGE, INK, FAINT = "#1f6fb4", "#d95f02", "#262626", "#8c8c8c"
MAX_NUMBERED_CLASSES = 30  # with more, a count would not fit its cell
MAX_NAMED_CLASSES = 120  # with more, only every second, third... class is labelled
MAX_NAME_LENGTH = 24
# For scripts that matplotlib's own font lacks; used where installed.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "IPAGothic", "Hiragino Sans", "Yu Gothic", "Noto Sans")


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
    blue, orange = (LinearSegmentedColormap.from_list("", ["white", colour]) for colour in (BLUE, ORANGE))
    cells_KK4 = np.where(np.eye(classes, dtype=bool)[:, :, None], blue(strength_KK), orange(strength_KK))

    cell_inches = min(0.62, max(0.15, 6.5 / classes)) if classes <= MAX_NAMED_CLASSES else 12 / classes
    side = max(2.4, classes * cell_inches)
    figure = _figure(side + 2.2, side + 2.0)
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
    _save(figure, path)


def draw_learning_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw training and validation loss and accuracy by epoch, with the saved epoch marked.

    rows: the lines of history.jsonl. RunError if the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = _figure(10, 4.2)
    saved = next((row for row in reversed(rows) if row["best"]), None)
    for position, name, title in ((1, "loss", "Loss"), (2, "accuracy", "Accuracy")):
        axes = figure.add_subplot(1, 2, position)
        for split, colour in (("train", ORANGE), ("validation", BLUE)):
            points = [(row["epoch"], row[f"{split}_{name}"]) for row in rows if row[f"{split}_{name}"] is not None]
            marker = "o" if len(rows) <= 30 else ""
            epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=split)
        if saved is not None and (value := saved[f"validation_{name}"]) is not None:
            axes.axvline(saved["epoch"], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            text = f"saved: epoch {saved['epoch']}, " + (f"{value:.2%}" if name == "accuracy" else f"{value:.4f}")
            axes.plot(
                [saved["epoch"]],
                [value],
                "o",
                markersize=9,
                markeredgewidth=1.8,
                color=BLUE,
                fillstyle="none",
                label=text,
            )
        axes.set_title(title, loc="left", color=INK, fontsize=12)
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.03)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if rows:
            axes.legend(frameon=False, loc="best")
    _save(figure, path)


def draw_image_grid(rows: Sequence[tuple[str, Sequence[Any]]], path: Path) -> None:
    """Draw a row of images for each label: the original first, then augmented ones.

    An image is C x H x W with 1 or 3 channels: uint8, or floating point in [0, 1]. RunError as above.
    """
    columns = max((len(images) for _, images in rows), default=1)
    figure = _figure(1.15 * columns + 1.2, 1.15 * max(1, len(rows)) + 0.4)
    grid = figure.subplots(max(1, len(rows)), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (label, images) in zip(grid, rows, strict=False):
        for axes, image in zip(line, images, strict=False):
            pixels_HWC = np.asarray(image).transpose(1, 2, 0)
            pixels_HWC = pixels_HWC if pixels_HWC.dtype == np.uint8 else pixels_HWC.clip(0, 1)
            axes.imshow(np.repeat(pixels_HWC, 3, axis=2) if pixels_HWC.shape[2] == 1 else pixels_HWC)
        _set_literal_text(
            line[0].text(-0.08, 0.5, _shorten(label), transform=line[0].transAxes, ha="right", va="center")
        )
    if rows:
        grid[0, 0].set_title("original", fontsize=10, color=INK)
    if rows and columns > 1:
        grid[0, 1].set_title("augmented", fontsize=10, color=INK, loc="left")
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _name_classes(axes: "Axes", class_names: Sequence[str], size: float) -> None:
    """Label both axes of the matrix with class names, horizontally if they are short and few enough."""
    every = math.ceil(len(class_names) / MAX_NAMED_CLASSES)
    positions = list(range(0, len(class_names), every))
    names = [_shorten(class_names[position]) for position in positions]
    is_horizontal = len(names) <= 15 and max(map(len, names), default=0) <= 4
    axes.set_xticks(positions, names, fontsize=size, rotation=0 if is_horizontal else 90)
    axes.set_yticks(positions, names, fontsize=size)
    on_all_edges = len(names) > MAX_NUMBERED_CLASSES  # a large matrix is hard to follow from cell to edge
    axes.tick_params(length=0, colors=INK, labelright=on_all_edges, labeltop=on_all_edges)
    axes.spines[:].set_color(FAINT)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        _set_literal_text(label)


def _set_literal_text(text: "Text") -> None:
    """Draw a class name such as $this$ literally, not as a formula, in an installed font for its script."""
    text.set_parse_math(False)
    text.set_fontfamily(_fonts())


@functools.cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def _shorten(name: str) -> str:
    """Shorten a long name to its beginning and its end, where long names differ."""
    name = name.replace("\n", " ")
    half = MAX_NAME_LENGTH // 2
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:half]}…{name[1 - half :]}"


def _save(figure: "Figure", path: Path) -> None:
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with warnings.catch_warnings():
            # A character that no installed font has is drawn as a box, which is no reason for a warning.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(part, format="png", facecolor="white")
        part.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): make room, or choose another --out"
        ) from None
