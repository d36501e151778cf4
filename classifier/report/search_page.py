"""search.html: what a search did and learned, on one page that needs no network, made from saved results alone."""

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
# Rows of the table, curves, and axes that a person can still tell apart.
TABLE_ROWS, CURVES, AXES = 40, 12, 7
PER_CENT = ("accuracy", "macro_f1")


def write(folder: Path) -> Path:
    """Make the page of a finished search from its result.json, trials.parquet and trials' journals."""
    import pyarrow.parquet as pq

    result = read_result(folder)
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    return html.write(folder / NAME, f"Search of {result['dataset']['name']}", _sections(folder, result, rows))


def _sections(folder: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    yield _summary(result, rows)
    scored = [row for row in rows if row["validation_accuracy"] is not None]
    objective = result["objective"][0]
    yield section("Score against time", _against_time(scored, objective), "Each dot is a trial's best epoch.")
    if len(result["objective"]) > 1:
        words = "The line joins the trials that no other one beats in all objectives."
        yield section("The best compromises", _front(scored, result["objective"]), words)
    if result["importance"]:
        words = f"The share of the difference in {objective} that each setting explains (fANOVA)."
        yield section("What mattered", bars(result["importance"], "importance of each setting"), words)
    names = [name for name in rows[0] if "." in name and len({row[name] for row in scored}) > 1]
    if names and len(scored) > 2:
        shown = sorted(names, key=lambda name: -result["importance"].get(name, 0.0))[: AXES - 1]
        words = "Each line is a trial; the winner is drawn boldly."
        yield section("All trials", parallel(_columns(scored, shown, objective), "parallel coordinates"), words)
    yield section("Learning curves", _curves(folder, scored), f"Validation accuracy of the best {CURVES} trials.")
    yield section("Trials", _table(rows, result["winner"], names), "")
    yield section("Again", _commands(folder, result), "")


def _summary(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    dataset, test, chosen = result["dataset"], result["test"], result["selection"]
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset["counts"].items())
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    first = next((row for row in rows if row["source"] == "recipe"), None)
    gain = ""
    if first is not None and first["validation_accuracy"] is not None:
        points = 100 * (chosen["accuracy"] - first["validation_accuracy"])
        gain = f" That is {points:+.2f} points from the recipe it began with." if first["rank"] > 1 else ""
        gain = " The recipe it began with won." if first["rank"] == 1 else gain
    return f"""<h1>Search of {escape(dataset["name"])}</h1>
<p class="big">Test accuracy {test["accuracy"]:.2%} on {test["count"]:,} images, read once.</p>
<p>Trial {escape(result["winner"])} won with {chosen["accuracy"]:.2%} validation accuracy.{gain}</p>
<p class="faint">{escape(trials)} trials in {result["seconds"] / 60:.1f} minutes on {escape(str(result["device"]))};
{escape(counts)} images of {len(dataset["class_names"])} classes.</p>"""


def _against_time(rows: list[dict[str, Any]], objective: str) -> str:
    points = sorted((row["at"], _score(row, objective), row["trial"]) for row in rows)
    best, so_far = [], None
    for _, score, _ in points:
        pick = max if MODES[objective] == "max" else min
        so_far = score if so_far is None else pick(score, so_far)
        best.append(so_far)
    xs, ys = [p[0] / 60 for p in points], [p[1] for p in points]
    titles = [f"{name}: {_words(objective, score)}" for _, score, name in points]
    y = Axis.over(ys, f"validation {objective}" if objective in PER_CENT else objective, _unit(objective))
    series = [Series(xs, best, "steps"), Series(xs, ys, "dots", 1, titles)]
    return plot(series, Axis.over([0.0, *xs], "minutes", ".3g"), y, "best score so far against time")


def _front(rows: list[dict[str, Any]], objectives: list[str]) -> str:
    first, second = objectives[:2]
    xs, ys = [_score(row, second) for row in rows], [_score(row, first) for row in rows]
    front = sorted((x, y) for x, y, row in zip(xs, ys, rows, strict=True) if row["on_front"])
    series = [
        Series([x for x, _ in front], [y for _, y in front], "line"),
        Series(
            xs,
            ys,
            "dots",
            1,
            [
                f"{row['trial']}: {_words(first, y)}, {_words(second, x)}"
                for row, x, y in zip(rows, xs, ys, strict=True)
            ],
        ),
    ]
    named = {"latency": "milliseconds an image", "size": "parameters"}
    log = min(xs) > 0 and max(xs) > 10 * min(xs)
    x_axis = Axis.over(xs, named.get(second, second), _unit(second), log)
    return plot(series, x_axis, Axis.over(ys, first, _unit(first)), f"{first} against {second}")


def _columns(
    rows: list[dict[str, Any]], names: list[str], objective: str
) -> list[tuple[str, list[float], tuple[str, ...]]]:
    columns, lasts = [], [name.rpartition(".")[2] for name in names]
    for name, last in zip(names, lasts, strict=True):
        # optimizer.name and model.name: the last word alone would not tell which.
        short = last if lasts.count(last) == 1 else name.replace(".", " ")
        values = [row[name] for row in rows]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            low, high = min(values), max(values)
            axis = Axis(
                low, high if high > low else low + 1, log=name == "optimizer.lr" or (low > 0 and high > 30 * low)
            )
            columns.append((short, [axis.share(value) for value in values], (f"{low:.3g}", f"{high:.3g}")))
        else:
            order = sorted(set(map(str, values)))
            shares = [order.index(str(value)) / max(1, len(order) - 1) for value in values]
            columns.append((short, shares, (order[0], order[-1])))
    scores = [_score(row, objective) for row in rows]
    axis = Axis(min(scores), max(scores) if max(scores) > min(scores) else min(scores) + 1)
    ends = (_words(objective, min(scores)), _words(objective, max(scores)))
    return [*columns, (objective, [axis.share(score) for score in scores], ends)]


def _curves(folder: Path, rows: list[dict[str, Any]]) -> str:
    series = []
    for i, row in enumerate(rows[:CURVES]):
        history = [line for line in read_history(folder / "trials" / row["trial"]) if line["validation_accuracy"]]
        xs, ys = [float(line["epoch"]) for line in history], [line["validation_accuracy"] for line in history]
        series.append(Series(xs, ys, "line" if i == 0 else "thin", 1 if i == 0 else 0))
    xs, ys = [x for one in series for x in one.xs], [y for one in series for y in one.ys]
    if not xs:
        return "<p>No trial came to the end of an epoch.</p>"
    drawn = [*series[1:], series[0]]
    return plot(drawn, Axis.over(xs, "epoch"), Axis.over(ys, "validation accuracy", ".1%"), "learning curves")


def _table(rows: list[dict[str, Any]], winner: str, names: list[str]) -> str:
    scores = [name for name in ("accuracy", "macro_f1", "loss") if f"validation_{name}" in rows[0]]
    extra = [name for name in ("latency", "size") if name in rows[0]]
    head = ["trial", *scores, *extra, "epochs", *names, "source", "status"]
    lines = []
    for row in rows[:TABLE_ROWS]:
        cells = [row["trial"], *(_words(name, row[f"validation_{name}"]) for name in scores)]
        cells += [*(_words(name, row[name]) for name in extra), str(row["epochs"])]
        cells += [f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names]
        lines.append([*cells, row["source"], row["status"]])
    won = next((n for n, row in enumerate(rows[:TABLE_ROWS]) if row["trial"] == winner), None)
    more = f'<p class="faint">and {len(rows) - TABLE_ROWS} more in trials.parquet</p>' if len(rows) > TABLE_ROWS else ""
    return table(head, lines, won) + more


def _commands(folder: Path, result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"python jobs/train.py --experiment {folder / 'best.yaml'}",
        f"python jobs/tune.py --resume {folder} --search.trials {2 * sum(result['trials'].values())}",
        f"python jobs/predict.py {folder} picture.jpg",
    ]
    seed = json.dumps(result["config"]["seed"])
    return f'<pre>{escape(chr(10).join(lines))}</pre><p class="faint">seed {seed}; {escape(versions)}</p>'


def _score(row: dict[str, Any], objective: str) -> float:
    if objective == "epochs":
        return float(row["best_epoch"])
    return row[f"validation_{objective}"] if f"validation_{objective}" in row else row[objective]


def _unit(objective: str) -> str:
    return ".1%" if objective in PER_CENT else ".3g"


def _words(objective: str, value: float | None) -> str:
    if value is None:
        return ""
    if objective == "size":
        return f"{value:,.0f}"
    return f"{value:.2%}" if objective in PER_CENT else f"{value:.3g}"
