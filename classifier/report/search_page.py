"""search.html: the results of a search on one self-contained page, made from its saved files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from classifier.report import page, search_charts, sentences
from classifier.report.charts import draw_bars
from classifier.report.page import Block, Charts, Code, Page, Section, Table, Text, describe_hidden
from classifier.report.search_charts import format_objective
from classifier.runs.folder import read_history, read_result

NAME = "search.html"
# Rows of the table, curves, and parallel axes that a person can still tell apart.
MAX_TABLE_ROWS, MAX_CURVES, MAX_AXES = 40, 12, 7


def write(folder: Path) -> Path:
    """Write the page of a finished search from its result.json, trials.parquet and the histories of its trials."""
    import pyarrow.parquet as pq

    result = read_result(folder)
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    summary, sections = _build_summary(result, rows), list(_build_sections(folder, result, rows))
    return page.write(folder / NAME, Page(f"Search of {result['dataset']['name']}", summary, sections))


def _build_sections(folder: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[Section]:
    scored = [row for row in rows if row["validation_accuracy"] is not None]
    objective = result["objective"][0]
    chart = search_charts.draw_best_so_far(scored, objective)
    yield Section("Score over time", [Charts([chart])], "Each dot is the best epoch of a trial.")
    if len(result["objective"]) > 1:
        note = "The line connects the trials that no other trial dominates."
        yield Section("Pareto front", [Charts([search_charts.draw_front(scored, result["objective"])])], note)
    names = [name for name in rows[0] if "." in name and len({row[name] for row in scored}) > 1]
    doubt = sentences.doubt_importance(result["importance"], len(scored))
    if doubt is None:
        note = f"Share of the variance in {objective} that each setting explains (fANOVA)."
        bars = draw_bars(result["importance"], "Importance of each setting")
        yield Section("Hyperparameter importance", [Charts([bars])], note)
    elif len(names) > 1 and len(scored) > 2:
        yield Section("Hyperparameter importance", [Text(doubt)])
    if names and len(scored) > 2:
        shown = sorted(names, key=lambda name: -result["importance"].get(name, 0.0))[: MAX_AXES - 1]
        note = "Each line is a trial; the bold one is the best."
        yield Section("All trials", [Charts([search_charts.draw_trials(scored, shown, objective)])], note)
    histories = [read_history(folder / "trials" / row["trial"]) for row in scored[:MAX_CURVES]]
    chart = search_charts.draw_curves([row["trial"] for row in scored], histories)
    note = f"Validation accuracy of the best trials (at most {MAX_CURVES}); the bold one is the best."
    block = Text("No trial finished an epoch.") if chart is None else Charts([chart])
    yield Section("Learning curves", [block], note)
    yield Section("Trials", _list_trials(rows, result["winner"], names))
    yield Section("Commands", _list_commands(folder, result))


def _build_summary(result: dict[str, Any], rows: list[dict[str, Any]]) -> list[Block]:
    dataset, test, selection = result["dataset"], result["test"], result["selection"]
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset["counts"].items())
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    evaluations = result.get("test_reads") or 1
    times = "evaluated once" if evaluations == 1 else f"evaluated {evaluations} times"
    best = f"{result['winner']}, validation accuracy {_with_interval(selection)}{_compare_to_recipe(result, rows)}"
    minutes = f"{trials} trials in {result['seconds'] / 60:.1f} minutes on {result['device']}"
    return [
        Text(f"Test accuracy {_with_interval(test)}, {times}.", "big"),
        Text(f"Best trial: {best}."),
        Text(f"{minutes}; {counts} images of {len(dataset['class_names'])} classes.", "faint"),
    ]


def _compare_to_recipe(result: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return how the best trial compares with the recipe that the search started from; empty if it was not tried."""
    recipe = next((row for row in rows if row["source"] == "recipe"), None)
    if recipe is None or recipe["validation_accuracy"] is None:
        return ""
    if recipe["rank"] == 1:
        return " (the unchanged recipe)"
    best = result["selection"]
    gain = sentences.compare_with_recipe(best["accuracy"], recipe["validation_accuracy"], best["count"])
    return f", {gain}" if recipe["rank"] > 1 else ""


def _with_interval(scores: dict[str, Any]) -> str:
    """Format the accuracy of result.json, with its interval."""
    return sentences.format_proportion(round(scores["accuracy"] * scores["count"]), scores["count"])


def _list_trials(rows: list[dict[str, Any]], winner: str, names: list[str]) -> list[Block]:
    scores = [name for name in ("accuracy", "macro_f1", "loss") if f"validation_{name}" in rows[0]]
    costs = [name for name in ("latency", "size") if name in rows[0]]
    head = ["trial", *scores, *costs, "epochs", *names, "source", "status"]
    lines = []
    for row in rows[:MAX_TABLE_ROWS]:
        cells = [row["trial"], *(format_objective(name, row[f"validation_{name}"]) for name in scores)]
        cells += [*(format_objective(name, row[name]) for name in costs), str(row["epochs"])]
        cells += [f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names]
        lines.append([*cells, row["source"], row["status"]])
    winner_row = next((n for n, row in enumerate(rows[:MAX_TABLE_ROWS]) if row["trial"] == winner), None)
    more = describe_hidden(MAX_TABLE_ROWS, len(rows), "more in trials.parquet")
    return [Table(head, lines, winner_row), *more]


def _list_commands(folder: Path, result: dict[str, Any]) -> list[Block]:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"classifier train --experiment {folder / 'best.yaml'}",
        f"classifier tune --resume {folder} --search.trials {2 * sum(result['trials'].values())}",
        f"classifier predict {folder} image.jpg",
    ]
    seed = json.dumps(result["config"]["seed"])
    return [Code(lines), Text(f"seed {seed}; {versions}", "faint")]
