"""The charts that several pages or files share: scores by epoch, bars, parallel coordinates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classifier.report.figure import (
    COLOURS,
    FAINT,
    INK,
    LINE,
    TEXT_SIZE,
    TRAIN,
    VALIDATION,
    create_axes,
    create_figure,
    format_shares,
    render_chart,
)
from classifier.report.page import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Epochs that are marked one by one.
MAX_MARKED_EPOCHS = 30
# Pixels between parallel axes, and characters that fit there.
AXIS_DISTANCE, MAX_LABEL_LENGTH = 116, 14
# Characters of a name above a bar.
MAX_NAME_LENGTH = 40
LEGEND = (("training", TRAIN), ("validation", VALIDATION))
# Scores that only some tasks have, and only for validation images; names of scores that are no words.
TASK_SCORES = {"map": "mean average precision", "quadratic_kappa": "quadratic weighted kappa"}


def plot_by_epoch(axes: "Axes", rows: Sequence[Mapping[str, Any]], score: str) -> None:
    """Draw a score, accuracy or loss, of both splits by epoch, with a ring around the saved epoch.

    rows: the lines of history.jsonl. score: may be one of TASK_SCORES, too.
    """
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(rows) <= MAX_MARKED_EPOCHS else ""
    for split, (label, colour) in zip(("train", "validation"), LEGEND, strict=True):
        if split == "train" and score in TASK_SCORES:
            continue
        points = select_known(rows, f"{split}_{score}")
        axes.plot(*points, color=COLOURS[colour], marker=marker, markersize=4, linewidth=2, label=label)
    saved = find_saved(rows)
    if saved is not None and (value := saved.get(f"validation_{score}")) is not None:
        label = f"saved: epoch {saved['epoch']}, {format_score(score, value)}"
        ring = {"marker": "o", "markersize": 10, "markeredgewidth": 2, "fillstyle": "none", "linestyle": "none"}
        axes.plot([saved["epoch"]], [value], color=COLOURS[VALIDATION], label=label, **ring)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    if score in ("accuracy", "map"):
        axes.yaxis.set_major_formatter(format_shares())


def draw_by_epoch(rows: Sequence[Mapping[str, Any]], score: str) -> Chart | None:
    """Draw the chart of a score by epoch; None if fewer than two values are known."""
    known = {split: select_known(rows, f"{split}_{score}") for split in ("train", "validation")}
    if sum(len(values) for _, values in known.values()) < 2:
        return None
    title = TASK_SCORES.get(score, score)
    figure, axes = create_axes("epoch", title)
    plot_by_epoch(axes, rows, score)
    text = f"{title.capitalize()} by epoch."
    for (label, _), (epochs, values) in zip(LEGEND, known.values(), strict=True):
        if values:
            ends = [f"{format_score(score, values[n])} in epoch {epochs[n]}" for n in (0, -1)]
            text += f" {label.capitalize()}: from {ends[0]} to {ends[1]}."
    saved = find_saved(rows)
    legend = LEGEND[1:] if score in TASK_SCORES else LEGEND
    if saved is not None and (value := saved.get(f"validation_{score}")) is not None:
        text += f" Saved: epoch {saved['epoch']}, validation {format_score(score, value)}."
    return Chart(render_chart(figure, text), text, legend)


def select_known(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the epochs with a value of this name, and the values."""
    known = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
    return [epoch for epoch, _ in known], [value for _, value in known]


def find_saved(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row of the epoch whose model was saved, if any."""
    return next((row for row in reversed(rows) if row.get("best")), None)


def format_score(score: str, value: float) -> str:
    """Format an accuracy, a loss, or one of TASK_SCORES."""
    return f"{value:.2%}" if score in ("accuracy", "map") else f"{value:.4g}"


def draw_bars(
    values: Mapping[str, float],
    title: str,
    deviations: Mapping[str, float] | None = None,
    write: Callable[[float], str] = "{:.0%}".format,
) -> Chart:
    """Draw a horizontal bar for each name, with the name above it; a value below 0 has none.

    deviations: drawn as lines around the ends. write: turns a value into text.
    """
    deviations = deviations or {}
    ends = {name: value + deviations.get(name, 0.0) for name, value in values.items()}
    row, largest = 46, max([0.0, *ends.values()]) or 1.0
    figure = create_figure(height=row * max(1, len(values)))
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(0, 1.2 * largest), ylim=(len(values), 0))
    for n, (name, value) in enumerate(values.items()):
        axes.text(0, n + 0.4, shorten(name, MAX_NAME_LENGTH), color=INK, fontsize=TEXT_SIZE, va="bottom")
        axes.barh(n + 0.65, max(value, 0.003 * largest), 0.32, color=COLOURS["blue"])
        if name in deviations:
            low = max(0.0, value - deviations[name])
            axes.hlines(n + 0.65, low, max(low, ends[name]), color=INK, linewidth=1.5)
        x = max(0.0, ends[name]) + 0.02 * largest
        axes.text(x, n + 0.65, write(value), color=FAINT, fontsize=TEXT_SIZE, va="center")
    text = f"{title}: " + ", ".join(f"{name} {write(value)}" for name, value in values.items())
    return Chart(render_chart(figure, text), text)


@dataclass(frozen=True)
class ParallelAxis:
    """One of several parallel axes: the position of each row on it, from 0 to 1, and labels by position."""

    name: str
    positions: Sequence[float]
    labels: Mapping[float, str]


def draw_parallel(parallel_axes: Sequence[ParallelAxis], title: str) -> Chart:
    """Draw parallel coordinates. Rows are sorted best first; the best is drawn bold, on top."""
    last = len(parallel_axes) - 1
    figure = create_figure(AXIS_DISTANCE * len(parallel_axes), 340)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(-0.5, last + 0.5), ylim=(-0.16, 1.2))
    rows = len(parallel_axes[0].positions)
    for row in reversed(range(rows)):
        heights = [axis.positions[row] for axis in parallel_axes]
        style = {"color": COLOURS[VALIDATION], "linewidth": 2.5} if row == 0 else {"color": FAINT, "alpha": 0.5}
        axes.plot(range(len(heights)), heights, **style)
    texts = []
    for x, axis in enumerate(parallel_axes):
        axes.plot([x, x], [0, 1], color=LINE, linewidth=1.5, zorder=1)
        axes.text(x, 1.12, shorten(axis.name), color=INK, fontsize=TEXT_SIZE, ha="center", va="bottom")
        for position, label in axis.labels.items():
            y, va = (1.02, "bottom") if position == 1 else (-0.02, "top") if position == 0 else (position, "center")
            axes.text(x, y, shorten(label), color=FAINT, fontsize=TEXT_SIZE, ha="center", va=va)
        texts.append(f"{axis.name} {', '.join(axis.labels.values())}")
    text = f"{title}: {rows} lines over {'; '.join(texts)}"
    return Chart(render_chart(figure, text), text)


def shorten(name: str, length: int = MAX_LABEL_LENGTH) -> str:
    """Shorten a long name to its beginning and its end, where long names differ."""
    name = " ".join(name.split())
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[1 - half :]}"
