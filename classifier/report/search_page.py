"""search.html: the results of a search on one self-contained page, made from its saved files."""

import itertools
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from classifier.report import html
from classifier.report.html import section, table
from classifier.report.svg import Axis, Series, bars, parallel, plot
from classifier.runs.folder import read_history, read_result
from classifier.search.pareto import MODES

NAME = "search.html"
# Rows of the table, curves, and parallel axes that a person can still tell apart.
MAX_TABLE_ROWS, MAX_CURVES, MAX_AXES = 40, 12, 7
# A parallel axis is logarithmic if its largest value is so many times its smallest; a Pareto front's, likewise.
LOG_AXIS_RATIO, LOG_FRONT_RATIO = 30, 10
PERCENT_OBJECTIVES = ("accuracy", "macro_f1")
AXIS_NAMES = {"latency": "milliseconds per image", "size": "parameters"}


def write(folder: Path) -> Path:
    """Write the page of a finished search from its result.json, trials.parquet and the histories of its trials."""
    import pyarrow.parquet as pq

    result = read_result(folder)
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    return html.write(folder / NAME, f"Search of {result['dataset']['name']}", _sections(folder, result, rows))


def _sections(folder: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    yield _render_summary(result, rows)
    scored = [row for row in rows if row["validation_accuracy"] is not None]
    objective = result["objective"][0]
    yield section("Score over time", _plot_best_so_far(scored, objective), "Each dot is the best epoch of a trial.")
    if len(result["objective"]) > 1:
        note = "The line connects the trials that no other trial dominates."
        yield section("Pareto front", _plot_front(scored, result["objective"]), note)
    if result["importance"]:
        note = f"Share of the variance in {objective} that each setting explains (fANOVA)."
        yield section("Hyperparameter importance", bars(result["importance"], "importance of each setting"), note)
    names = [name for name in rows[0] if "." in name and len({row[name] for row in scored}) > 1]
    if names and len(scored) > 2:
        shown = sorted(names, key=lambda name: -result["importance"].get(name, 0.0))[: MAX_AXES - 1]
        note = "Each line is a trial; the bold one is the best."
        yield section("All trials", parallel(_parallel_axes(scored, shown, objective), "parallel coordinates"), note)
    yield section(
        "Learning curves",
        _plot_curves(folder, scored),
        f"Validation accuracy of the best trials (at most {MAX_CURVES}).",
    )
    yield section("Trials", _trials_table(rows, result["winner"], names))
    yield section("Commands", _commands(folder, result))


def _render_summary(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    dataset, test, selection = result["dataset"], result["test"], result["selection"]
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset["counts"].items())
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    evaluations = result.get("test_reads") or 1
    times = "evaluated once" if evaluations == 1 else f"evaluated {evaluations} times"
    best = f"{result['winner']}, validation accuracy {selection['accuracy']:.2%}{_compare_to_recipe(result, rows)}"
    return f"""<h1>Search of {escape(dataset["name"])}</h1>
<p class="big">Test accuracy {test["accuracy"]:.2%} on {test["count"]:,} images, {times}.</p>
<p>Best trial: {escape(best)}.</p>
<p class="faint">{escape(trials)} trials in {result["seconds"] / 60:.1f} minutes on {escape(str(result["device"]))};
{escape(counts)} images of {len(dataset["class_names"])} classes.</p>"""


def _compare_to_recipe(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return how the best trial compares with the recipe that the search started from; empty if it was not tried."""
    recipe = next((row for row in rows if row["source"] == "recipe"), None)
    if recipe is None or recipe["validation_accuracy"] is None:
        return ""
    if recipe["rank"] == 1:
        return " (the unchanged recipe)"
    points = 100 * (result["selection"]["accuracy"] - recipe["validation_accuracy"])
    return f", {points:+.2f} percentage points relative to the unchanged recipe" if recipe["rank"] > 1 else ""


def _plot_best_so_far(rows: list[dict[str, Any]], objective: str) -> str:
    points = sorted((row["at"], _score(row, objective), row["trial"]) for row in rows)
    better = max if MODES[objective] == "max" else min
    minutes, scores = [seconds / 60 for seconds, _, _ in points], [score for _, score, _ in points]
    best_so_far = list(itertools.accumulate(scores, better))
    titles = [f"{trial}: {_format(objective, score)}" for _, score, trial in points]
    y = Axis.over(scores, f"validation {objective}" if objective in PERCENT_OBJECTIVES else objective, _unit(objective))
    series = [Series(minutes, best_so_far, "steps"), Series(minutes, scores, "dots", 1, titles)]
    return plot(series, Axis.over([0.0, *minutes], "minutes", ".3g"), y, "best score so far, over time")


def _plot_front(rows: list[dict[str, Any]], objectives: list[str]) -> str:
    first, second = objectives[:2]
    xs, ys = [_score(row, second) for row in rows], [_score(row, first) for row in rows]
    front = sorted((x, y) for x, y, row in zip(xs, ys, rows, strict=True) if row["on_front"])
    titles = [
        f"{row['trial']}: {_format(first, y)}, {_format(second, x)}" for row, x, y in zip(rows, xs, ys, strict=True)
    ]
    series = [Series([x for x, _ in front], [y for _, y in front], "line"), Series(xs, ys, "dots", 1, titles)]
    log = min(xs) > 0 and max(xs) > LOG_FRONT_RATIO * min(xs)
    x_axis = Axis.over(xs, AXIS_NAMES.get(second, second), _unit(second), log)
    return plot(series, x_axis, Axis.over(ys, first, _unit(first)), f"{first} against {second}")


def _parallel_axes(
    rows: list[dict[str, Any]], names: list[str], objective: str
) -> list[tuple[str, list[float], tuple[str, ...]]]:
    """The axes of svg.parallel: one for each setting, and the objective's."""
    axes, last_parts = [], [name.rpartition(".")[2] for name in names]
    for name, last_part in zip(names, last_parts, strict=True):
        # optimizer.name and model.name have the same last part.
        title = last_part if last_parts.count(last_part) == 1 else name.replace(".", " ")
        values = [row[name] for row in rows]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            low, high = min(values), max(values)
            log = name == "optimizer.lr" or (low > 0 and high > LOG_AXIS_RATIO * low)
            axis = Axis(low, high if high > low else low + 1, log=log)
            axes.append((title, [axis.fraction(value) for value in values], (f"{low:.3g}", f"{high:.3g}")))
        else:
            order = sorted(set(map(str, values)))
            fractions = [order.index(str(value)) / max(1, len(order) - 1) for value in values]
            axes.append((title, fractions, (order[0], order[-1])))
    scores = [_score(row, objective) for row in rows]
    low, high = min(scores), max(scores)
    axis = Axis(low, high if high > low else low + 1)
    fractions = [axis.fraction(score) for score in scores]
    return [*axes, (objective, fractions, (_format(objective, low), _format(objective, high)))]


def _plot_curves(folder: Path, rows: list[dict[str, Any]]) -> str:
    series = []
    for i, row in enumerate(rows[:MAX_CURVES]):
        history = [line for line in read_history(folder / "trials" / row["trial"]) if line["validation_accuracy"]]
        xs, ys = [float(line["epoch"]) for line in history], [line["validation_accuracy"] for line in history]
        series.append(Series(xs, ys, "line" if i == 0 else "thin", 1 if i == 0 else 0))
    xs, ys = [x for one in series for x in one.xs], [y for one in series for y in one.ys]
    if not xs:
        return "<p>No trial finished an epoch.</p>"
    best_on_top = [*series[1:], series[0]]
    return plot(best_on_top, Axis.over(xs, "epoch"), Axis.over(ys, "validation accuracy", ".1%"), "learning curves")


def _trials_table(rows: list[dict[str, Any]], winner: str, names: list[str]) -> str:
    scores = [name for name in ("accuracy", "macro_f1", "loss") if f"validation_{name}" in rows[0]]
    costs = [name for name in ("latency", "size") if name in rows[0]]
    head = ["trial", *scores, *costs, "epochs", *names, "source", "status"]
    lines = []
    for row in rows[:MAX_TABLE_ROWS]:
        cells = [row["trial"], *(_format(name, row[f"validation_{name}"]) for name in scores)]
        cells += [*(_format(name, row[name]) for name in costs), str(row["epochs"])]
        cells += [f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names]
        lines.append([*cells, row["source"], row["status"]])
    winner_row = next((n for n, row in enumerate(rows[:MAX_TABLE_ROWS]) if row["trial"] == winner), None)
    hidden = len(rows) - MAX_TABLE_ROWS
    more = f'<p class="faint">and {hidden} more in trials.parquet</p>' if hidden > 0 else ""
    return table(head, lines, winner_row) + more


def _commands(folder: Path, result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"classifier train --experiment {folder / 'best.yaml'}",
        f"classifier tune --resume {folder} --search.trials {2 * sum(result['trials'].values())}",
        f"classifier predict {folder} image.jpg",
    ]
    seed = json.dumps(result["config"]["seed"])
    return f'<pre>{escape(chr(10).join(lines))}</pre><p class="faint">seed {seed}; {escape(versions)}</p>'


def _score(row: dict[str, Any], objective: str) -> float:
    if objective == "epochs":
        return float(row["best_epoch"])
    return row[f"validation_{objective}"] if f"validation_{objective}" in row else row[objective]


def _unit(objective: str) -> str:
    return ".1%" if objective in PERCENT_OBJECTIVES else ".3g"


def _format(objective: str, value: float | None) -> str:
    if value is None:
        return ""
    if objective == "size":
        return f"{value:,.0f}"
    return f"{value:.2%}" if objective in PERCENT_OBJECTIVES else f"{value:.3g}"
