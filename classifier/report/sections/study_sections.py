"""Report sections about several trainings (folds, learning curve, search) or about other images (robustness)."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier.config.documents import read_json
from classifier.errors import RunError
from classifier.evaluation.corruptions import GROUPS, SEVERITIES
from classifier.metrics.intervals import auroc_interval, mean_interval
from classifier.report import sentences
from classifier.report.charts import LEGEND, draw_bars
from classifier.report.figure import (
    COLOURS,
    SERIES,
    TRAIN,
    VALIDATION,
    create_axes,
    format_shares,
    make_logarithmic,
    render_chart,
)
from classifier.report.numbers import (
    count_images,
    format_interval,
    format_score,
    format_share,
    format_summary,
    format_with_interval,
)
from classifier.report.page import Block, Bullets, Chart, Charts, Section, Table, Text
from classifier.runs.schema import Robustness


def build_folds(folds: dict[str, Any]) -> Section:
    """A table of the scores of each fold of a cross-validation."""
    names = list(folds)
    rows = [
        [f"fold {n + 1}", *(format_score(name, folds[name]["folds"][n]) for name in names)]
        for n in range(len(folds[names[0]]["folds"]))
    ]
    means = [_format_mean(name, folds[name]) for name in names]
    note = "Each fold was held out once and predicted by a model that was trained on the others."
    head = ["", *(name.replace("_", " ") for name in names)]
    table = Table(head, [*rows, ["mean ± standard deviation", *means]], bold_row=len(rows))
    return Section("Folds", [table], note)


def _format_mean(name: str, score: dict[str, Any]) -> str:
    """The mean over the folds where the score is defined, and its deviation, which takes two of them."""
    is_known = sum(value is not None for value in score["folds"]) > 1
    return format_score(name, score["mean"]) + (f" ± {format_score(name, score['deviation'])}" if is_known else "")


def build_learning_curve(curve: dict[str, Any]) -> Section:
    """Accuracy against the number of training images, extrapolated by a power law."""
    points = curve["points"]
    extrapolated = [(int(images), accuracy) for images, accuracy in curve["predicted"].items()]
    count = curve.get("validation_images")  # older runs have none
    rows = [[f"{point['images']:,}", *describe_point(point, count)] for point in points]
    intervals = curve.get("predicted_intervals", {})  # older runs have none
    for images, accuracy in extrapolated:
        interval = format_interval(intervals.get(str(images)))
        rows.append([f"{images:,}", "", f"about {format_share(accuracy, 2)}" + (f" ({interval})" if interval else "")])
    table = Table(["images", "training", "validation"], rows)
    note = "The dashed line extrapolates by a power law." if extrapolated else ""
    return Section("Learning curve", [Charts([_draw_learning_curve(points, extrapolated)]), table], note)


def describe_point(point: Mapping[str, Any], validation_images: int | None) -> tuple[str, str]:
    """Training and validation accuracy of a size; the latter with its interval, if the number of images is known."""
    interval = (
        f" ({format_interval(mean_interval(point['validation'], validation_images))})" if validation_images else ""
    )
    return format_share(point["train"], 2), format_share(point["validation"], 2) + interval


def _draw_learning_curve(points: Sequence[Mapping[str, Any]], extrapolated: Sequence[tuple[int, float]]) -> Chart:
    sizes = [point["images"] for point in points]
    figure, axes = create_axes("training images", "accuracy")
    make_logarithmic(axes, "{:,.0f}")
    axes.yaxis.set_major_formatter(format_shares())
    for name, colour in (("train", TRAIN), ("validation", VALIDATION)):
        axes.plot(sizes, [point[name] for point in points], color=COLOURS[colour], marker="o", linewidth=2)
    if extrapolated:
        xs, ys = zip((sizes[-1], points[-1]["validation"]), *extrapolated, strict=True)
        axes.plot(xs, ys, color=COLOURS[VALIDATION], linewidth=1.5, linestyle="--")
    text = "Training and validation accuracy by the number of training images, as in the table below."
    return Chart(render_chart(figure, text), text, LEGEND)


def read_robustness(path: Path) -> dict[str, Any]:
    """Read robustness.json. RunError if it is corrupted, or lacks a corruption."""
    scores = read_json(path, Robustness, "measure it again")
    kinds, attacks = scores["corruptions"]["kinds"], scores.get("attacks")
    is_whole = all(len(kinds.get(kind, ())) == SEVERITIES for kind in itertools.chain(*GROUPS.values()))
    if attacks is not None:
        lengths = {len(attacks["epsilons"]), len(attacks["fgsm"]), len(attacks["pgd"])}
        is_whole &= len(lengths) == 1 and bool(attacks["auroc"])
    if "shift" in scores:
        is_whole &= all(ends is None or len(ends) == 2 for ends in scores["shift"]["intervals"].values())
    if not is_whole:
        raise RunError(f"{path} is corrupted (an accuracy is missing): measure it again")
    return dict(scores)


def build_robustness(scores: dict[str, Any]) -> Section:
    """Accuracy under corruptions and attacks, on a second dataset, and detection of images of other classes."""
    corruptions = scores["corruptions"]
    kinds = corruptions["kinds"]
    by_group = {
        group: [
            corruptions["clean"],
            *(float(np.mean([kinds[kind][s] for kind in of_group])) for s in range(SEVERITIES)),
        ]
        for group, of_group in GROUPS.items()
    }
    rows = [
        [kind.replace("_", " "), *(format_share(value) for value in kinds[kind])]
        for of_group in GROUPS.values()
        for kind in of_group
    ]
    count = corruptions["images"]
    clean, corrupted = (format_mean(corruptions[name], count) for name in ("clean", "mean"))
    lines = [
        f"Accuracy on {count_images(count)}: clean {clean}, corrupted {corrupted}, on average over all kinds and "
        "severities.",
        f"An accuracy of 50% on {count_images(count)}, at any severity, has a 95 % confidence interval of "
        f"{format_interval(mean_interval(0.5, count))}.",
    ]
    charts = [_draw_accuracies(range(SEVERITIES + 1), by_group, "severity", "accuracy under corruptions")]
    attacks = scores.get("attacks")
    if attacks:
        curves = {name.upper(): [corruptions["clean"], *attacks[name]] for name in ("fgsm", "pgd")}
        epsilons = [0.0, *map(float, attacks["epsilons"])]
        charts.append(_draw_accuracies(epsilons, curves, "change of each value, in 1/255", "accuracy under attack"))
        lines.append(f"Detection of attacked images by AUROC: {describe_aurocs(attacks, count)}.")
    if "shift" in scores:
        shift = scores["shift"]
        interval = format_with_interval(shift, "accuracy")[1]
        lines.append(
            f"Accuracy on {shift['name']}, a second dataset of the same classes: {format_share(shift['accuracy'])}"
            + (f" (95 % confidence interval {interval})." if interval else ".")
        )
    if "unlike" in scores:
        aurocs = describe_aurocs(scores["unlike"], count)
        lines.append(f"Detection of {scores['unlike']['name']}, images of other classes, by AUROC: {aurocs}.")
    head = ["corruption", *(f"severity {s}" for s in range(1, SEVERITIES + 1))]
    return Section("Robustness", [Bullets(lines), Charts(charts), Table(head, rows)])


def format_mean(accuracy: float, count: int) -> str:
    """An accuracy, or the mean of several on the same `count` images, with its interval."""
    return f"{format_share(accuracy)} ({format_interval(mean_interval(accuracy, count))})"


def describe_aurocs(measured: Mapping[str, Any], images: int) -> str:
    """AUROCs by score with their intervals. measured: `auroc`, and `images`, the number of the others."""
    counts = images, measured.get("images", images)
    ends = {name: auroc_interval(value, *counts) for name, value in measured["auroc"].items()}
    return ", ".join(
        f"{name} {value:.3f} ({ends[name][0]:.3f} to {ends[name][1]:.3f})" for name, value in measured["auroc"].items()
    )


def _draw_accuracies(xs: Sequence[float], curves: Mapping[str, Sequence[float]], x_name: str, title: str) -> Chart:
    """Draw an accuracy from 0 to 1 for each name, in as many colours."""
    figure, axes = create_axes(x_name, title)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(format_shares())
    for (_, accuracies), colour in zip(curves.items(), SERIES, strict=False):
        axes.plot(xs, accuracies, color=COLOURS[colour], linewidth=2, clip_on=False)
    texts = [f"{name}: {', '.join(f'{value:.0%}' for value in accuracies)}" for name, accuracies in curves.items()]
    text = f"{title.capitalize()}, by {x_name} ({', '.join(f'{x:g}' for x in xs)}). {'; '.join(texts)}."
    return Chart(render_chart(figure, text), text, list(zip(curves, SERIES, strict=False)))


def build_search(result: dict[str, Any]) -> Section:
    """A summary of a search, of which search.html has the details."""
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    text = f"{trials} trials in {(result.get('seconds') or 0) / 60:.1f} minutes; best trial: "
    text += f"{result['winner']}, chosen by its {format_summary('validation', result['selection'], 2)}."
    blocks: list[Block] = [Text(text)]
    if sentences.doubt_importance(result["importance"], sum(result["trials"].values())) is None:
        blocks.append(Charts([draw_bars(result["importance"], "importance of each setting")]))
    return Section("Search", blocks, "Details: search.html, in the same folder.")
