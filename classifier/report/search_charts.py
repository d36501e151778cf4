"""The charts of search.html. A trial is a row of trials.parquet; rows are sorted best first."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from classifier.report.charts import ParallelAxis, draw_parallel, select_known
from classifier.report.figure import (
    COLOURS,
    FAINT,
    VALIDATION,
    create_axes,
    format_numbers,
    format_shares,
    make_logarithmic,
    render_chart,
)
from classifier.report.page import Chart
from classifier.search.pareto import MODES

if TYPE_CHECKING:
    from matplotlib.ticker import Formatter

Row = dict[str, Any]
# A parallel axis is logarithmic if its largest value is so many times its smallest; a Pareto front's, likewise.
LOG_AXIS_RATIO, LOG_FRONT_RATIO = 30, 10
# Categories that are all named on a parallel axis.
MAX_CATEGORIES = 6
PERCENT_OBJECTIVES = ("accuracy", "macro_f1", "map")
AXIS_NAMES = {"latency": "milliseconds per image", "size": "parameters"}
DOTS = {"color": FAINT, "marker": "o", "markersize": 7, "linestyle": "none", "gid": "dots"}
BEST_LINE = {"color": COLOURS[VALIDATION], "linewidth": 2}


def draw_best_so_far(rows: Sequence[Row], objective: str) -> Chart:
    """Draw the score of each trial, and the best so far, over time."""
    points = sorted((row["at"] / 60, _score(row, objective), row["trial"]) for row in rows)
    minutes, scores = [at for at, _, _ in points], [score for _, score, _ in points]
    best = list(itertools.accumulate(scores, max if MODES[objective] == "max" else min))
    figure, axes = create_axes("minutes", f"validation {objective}" if objective in PERCENT_OBJECTIVES else objective)
    axes.step(minutes, best, where="post", **BEST_LINE)
    axes.plot(minutes, scores, **DOTS)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(_ticks(objective))
    said = [f"{trial}: {format_objective(objective, score)}" for _, score, trial in points]
    text = f"Best {objective} so far, over {minutes[-1]:.1f} minutes. First trial {said[0]}; "
    text += f"best {format_objective(objective, best[-1])}."
    legend = (("best so far", VALIDATION), ("trial", "faint"))
    return Chart(render_chart(figure, text, said), text, legend)


def draw_front(rows: Sequence[Row], objectives: Sequence[str]) -> Chart:
    """Draw the first two objectives of each trial, and the trials on the Pareto front as a line."""
    first, second = objectives[:2]
    xs, ys = [_score(row, second) for row in rows], [_score(row, first) for row in rows]
    front = sorted((x, y) for x, y, row in zip(xs, ys, rows, strict=True) if row["on_front"])
    figure, axes = create_axes(AXIS_NAMES.get(second, second), first)
    axes.plot([x for x, _ in front], [y for _, y in front], **BEST_LINE)
    axes.plot(xs, ys, **DOTS)
    if min(xs) > 0 and max(xs) > LOG_FRONT_RATIO * min(xs):
        make_logarithmic(axes)
    else:
        axes.xaxis.set_major_formatter(_ticks(second))
    axes.yaxis.set_major_formatter(_ticks(first))
    said = [
        f"{row['trial']}: {format_objective(first, y)}, {format_objective(second, x)}"
        for row, x, y in zip(rows, xs, ys, strict=True)
    ]
    on_front = [line for line, row in zip(said, rows, strict=True) if row["on_front"]]
    text = f"{first} against {second} of {len(rows)} trials. On the front: {'; '.join(on_front)}."
    legend = (("Pareto front", VALIDATION), ("trial", "faint"))
    return Chart(render_chart(figure, text, said), text, legend)


def draw_trials(rows: Sequence[Row], names: Sequence[str], objective: str) -> Chart:
    """Draw each trial as a line over parallel axes: one for each setting, and the objective's."""
    last_parts = [name.rpartition(".")[2] for name in names]
    axes = []
    for name, last_part in zip(names, last_parts, strict=True):
        # optimizer.name and model.name have the same last part.
        title = last_part if last_parts.count(last_part) == 1 else name.replace(".", " ")
        axes.append(_create_axis(title, [row[name] for row in rows], is_log=name == "optimizer.lr"))
    scores = [_score(row, objective) for row in rows]
    labels = {0.0: format_objective(objective, min(scores)), 1.0: format_objective(objective, max(scores))}
    axes.append(ParallelAxis(objective, _positions(scores, is_log=False), labels))
    return draw_parallel(axes, "All trials")


def _create_axis(title: str, values: Sequence[Any], *, is_log: bool) -> ParallelAxis:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        is_log = low > 0 and (is_log or high > LOG_AXIS_RATIO * low)
        return ParallelAxis(title, _positions(values, is_log=is_log), {0.0: f"{low:.3g}", 1.0: f"{high:.3g}"})
    order = sorted(set(map(str, values)))
    positions = {name: n / max(1, len(order) - 1) for n, name in enumerate(order)}
    named = order if len(order) <= MAX_CATEGORIES else (order[0], order[-1])
    return ParallelAxis(title, [positions[str(value)] for value in values], {positions[name]: name for name in named})


def _positions(values: Sequence[float], *, is_log: bool) -> list[float]:
    """Return the position of each value between the smallest and the largest, from 0 to 1."""
    scaled = [math.log(value) for value in values] if is_log else values
    low, high = min(scaled), max(scaled)
    return [(value - low) / ((high - low) or 1.0) for value in scaled]


def draw_curves(trials: Sequence[str], histories: Sequence[Sequence[Row]]) -> Chart | None:
    """Draw the validation accuracy of trials by epoch, the best trial first; None if there is nothing to draw."""
    from matplotlib.ticker import MaxNLocator

    curves = [select_known(rows, "validation_accuracy") for rows in histories]
    if not any(epochs for epochs, _ in curves):
        return None
    figure, axes = create_axes("epoch", "validation accuracy")
    for n, curve in reversed(list(enumerate(curves))):
        style = BEST_LINE if n == 0 else {"color": FAINT, "alpha": 0.5, "linewidth": 1.5}
        is_dot = len(curve[0]) == 1
        axes.plot(*curve, **style, marker="o" if is_dot else "", markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(format_shares())
    ends = [f"{trial} {values[-1]:.1%}" for trial, (_, values) in zip(trials, curves, strict=False) if values]
    text = f"Validation accuracy by epoch; in the last one: {', '.join(ends)}."
    legend = (("best trial", VALIDATION), ("other trials", "faint"))
    return Chart(render_chart(figure, text), text, legend)


def format_objective(objective: str, value: float | None) -> str:
    """Format the value of an objective; empty if it is unknown."""
    if value is None:
        return ""
    if objective == "size":
        return f"{value:,.0f}"
    return f"{value:.2%}" if objective in PERCENT_OBJECTIVES else f"{value:.3g}"


def _score(row: Row, objective: str) -> float:
    if objective == "epochs":
        return float(row["best_epoch"])
    return row[f"validation_{objective}"] if f"validation_{objective}" in row else row[objective]


def _ticks(objective: str) -> "Formatter":
    return format_shares() if objective in PERCENT_OBJECTIVES else format_numbers()
