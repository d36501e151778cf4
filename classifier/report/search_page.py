"""search.html: the results of a search on one self-contained page, made from its saved files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier.bundle.test_reads import count_test_reads, describe_count
from classifier.config.documents import read_rows
from classifier.errors import RunError
from classifier.report import page, search_charts, sentences
from classifier.report.charts import draw_bars
from classifier.report.numbers import format_summary
from classifier.report.page import Block, Charts, Code, Page, Section, Table, Text, describe_hidden
from classifier.report.search_charts import format_objective
from classifier.runs.folder import read_history, read_result
from classifier.runs.schema import TrialRow
from classifier.text import quote

NAME = "search.html"
# Rows of the table, curves, and parallel axes that a person can still tell apart.
MAX_TABLE_ROWS, MAX_CURVES, MAX_AXES = 40, 12, 7


def write(folder: Path) -> Path:
    """Write the page of a finished search from its result.json, trials.parquet and the histories of its trials."""
    result = read_result(folder)
    if "winner" not in result:
        raise RunError(f"{folder} is not a finished search: it has no winner")
    rows = [dict(row) for row in read_rows(folder / "trials.parquet", TrialRow)]
    if not result.get("dataset") or not _have_scores(rows, result["objective"]):
        raise RunError(f"{folder}: result.json and trials.parquet do not agree: resume the search")
    summary, sections = _build_summary(folder, result, rows), list(_build_sections(folder, result, rows))
    return page.write(folder / NAME, Page(f"Search of {result['dataset']['name']}", summary, sections))


def _have_scores(rows: list[dict[str, Any]], objectives: Sequence[str]) -> bool:
    """Return whether there is a trial with scores, and each of these has all objectives."""
    scored = [row for row in rows if row["validation_accuracy"] is not None]
    others = {"epochs": "best_epoch", "latency": "latency", "size": "size"}
    columns = [others.get(objective, f"validation_{objective}") for objective in objectives]
    return bool(scored and objectives) and all(row.get(column) is not None for row in scored for column in columns)


def _build_sections(folder: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[Section]:
    scored = [row for row in rows if row["validation_accuracy"] is not None]
    objective = result["objective"][0]
    chart = search_charts.draw_best_so_far(scored, objective)
    yield Section("Score over time", [Charts([chart])], "Each dot is the best epoch of a trial.")
    if len(result["objective"]) > 1:
        note = "The line connects the trials that no other trial dominates."
        yield Section("Pareto front", [Charts([search_charts.draw_front(scored, result["objective"])])], note)
    names = [name for name in rows[0] if "." in name and len({str(row[name]) for row in scored}) > 1]
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


def _build_summary(folder: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> list[Block]:
    dataset, test, selection = result["dataset"], result.get("test"), result["selection"]
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset["counts"].items())
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    score = f"{format_summary('Validation', selection)}; not tested on held-out images."
    if test is not None:
        reads = describe_count(max(1, count_test_reads(folder)))
        score = f"{format_summary('Test', test)}; the test split was read {reads}."
    is_whole = result["status"] == "finished"
    warnings = [] if is_whole else [Text(f"This search did not finish (status: {result['status']}).", "warning")]
    best = f"{result['winner']}, chosen by its {format_summary('validation', selection)}"
    best += _compare_to_recipe(result, rows)
    minutes = f"{trials} trials in {(result.get('seconds') or 0) / 60:.1f} minutes on {result.get('device')}"
    return [
        *warnings,
        Text(score, "big"),
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
    trials = sum(row["validation_accuracy"] is not None for row in rows)
    gain = sentences.compare_with_recipe(best["accuracy"], recipe["validation_accuracy"], best["count"], trials)
    return f", {gain}" if recipe["rank"] > 1 else ""


def _list_trials(rows: list[dict[str, Any]], winner: str, names: list[str]) -> list[Block]:
    known = ("accuracy", "macro_f1", "map", "quadratic_kappa", "loss")
    scores = [name for name in known if f"validation_{name}" in rows[0]]
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
    versions = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    lines = [
        f"classifier train --experiment {quote(folder / 'best.yaml')}",
        f"classifier tune --resume {quote(folder)} --search.trials {2 * sum(result['trials'].values())}",
        f"classifier predict {quote(folder)} image.jpg",
    ]
    seed = json.dumps((result.get("config") or {}).get("seed"))
    return [Code(lines), Text(f"seed {seed}; {versions}", "faint")]
