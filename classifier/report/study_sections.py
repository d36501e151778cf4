"""Report sections about several trainings (folds, learning curve, search) or about other images (robustness)."""

from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from classifier.evaluation.corruptions import GROUPS, SEVERITIES
from classifier.report.html import bullet_list, section, table
from classifier.report.model_sections import format_score, format_with_interval
from classifier.report.svg import Axis, Series, bars, plot


def render_folds(folds: dict[str, Any]) -> str:
    """A table of the scores of each fold of a cross-validation."""
    names = list(folds)
    rows = [
        [f"fold {n + 1}", *(format_score(name, folds[name]["folds"][n]) for name in names)]
        for n in range(len(folds[names[0]]["folds"]))
    ]
    means = [
        f"{format_score(name, folds[name]['mean'])} ± {format_score(name, folds[name]['deviation'])}" for name in names
    ]
    note = "Each fold was held out once and predicted by a model that was trained on the others."
    head = ["", *(name.replace("_", " ") for name in names)]
    return section("Folds", table(head, [*rows, ["mean ± standard deviation", *means]], bold_row=len(rows)), note)


def render_learning_curve(curve: dict[str, Any]) -> str:
    """Accuracy against the number of training images, extrapolated by a power law."""
    points = curve["points"]
    sizes = [float(point["images"]) for point in points]
    validation = [point["validation"] for point in points]
    series = [
        Series(sizes, [point["train"] for point in points]),
        Series(sizes, validation, "line", 1),
        Series(sizes, validation, "dots", 1),
    ]
    extrapolated = [(float(images), accuracy) for images, accuracy in curve["predicted"].items()]
    if extrapolated:
        xs, ys = zip((sizes[-1], validation[-1]), *extrapolated, strict=True)
        series.append(Series(xs, ys, "thin", 1))
    xs, ys = [x for one in series for x in one.xs], [y for one in series for y in one.ys]
    axes = Axis.over(xs, "training images", ",.0f", log=True), Axis.over(ys, "accuracy", ".0%")
    rows = [[f"{point['images']:,}", f"{point['train']:.2%}", f"{point['validation']:.2%}"] for point in points]
    rows += [[f"{int(images):,}", "", f"about {accuracy:.2%}"] for images, accuracy in extrapolated]
    note = "Training accuracy blue, validation accuracy orange; thin line: extrapolation by a power law."
    content = plot(series, *axes, "learning curve") + table(["images", "training", "validation"], rows)
    return section("Learning curve", content, note)


def render_robustness(scores: dict[str, Any]) -> str:
    """Accuracy under corruptions and attacks, on a second dataset, and detection of images of other classes."""
    corruptions = scores["corruptions"]
    severities = [0.0, *map(float, range(1, SEVERITIES + 1))]
    series, rows = [], []
    for n, kinds in enumerate(GROUPS.values()):
        means = [float(np.mean([corruptions["kinds"][kind][s] for kind in kinds])) for s in range(SEVERITIES)]
        series.append(Series(severities, [corruptions["clean"], *means], "line", n))
        rows += [[kind.replace("_", " "), *(f"{v:.1%}" for v in corruptions["kinds"][kind])] for kind in kinds]
    lines = [
        f"Accuracy on {corruptions['images']:,} images: clean {corruptions['clean']:.1%}, corrupted "
        f"{corruptions['mean']:.1%} (mean over all kinds and severities)."
    ]
    axes = Axis(0, SEVERITIES, "severity"), Axis(0.0, 1.0, "accuracy", ".0%")
    content = plot(series, *axes, "accuracy under corruptions") + _legend(GROUPS)
    attacks = scores.get("attacks")
    if attacks:
        epsilons = [0.0, *map(float, attacks["epsilons"])]
        curves = [
            Series(epsilons, [corruptions["clean"], *attacks[name]], "line", n)
            for n, name in enumerate(("fgsm", "pgd"))
        ]
        axes = Axis(0, epsilons[-1], "perturbation of each value, in 1/255"), Axis(0.0, 1.0, "accuracy", ".0%")
        content += plot(curves, *axes, "accuracy under attack") + _legend(("FGSM", "PGD"))
        name, auroc = max(attacks["auroc"].items(), key=lambda item: item[1])
        lines.append(f"Detection of attacked images: AUROC {auroc:.2f} (best detector: {name}).")
    if "shift" in scores:
        shift = scores["shift"]
        interval = format_with_interval(shift, "accuracy")[1]
        lines.append(
            f"Accuracy on {shift['name']}, a second dataset of the same classes: {shift['accuracy']:.1%}"
            + (f" (95 % confidence interval {interval})." if interval else ".")
        )
    if "unlike" in scores:
        aurocs = ", ".join(f"{name} {value:.3f}" for name, value in scores["unlike"]["auroc"].items())
        lines.append(f"Detection of {scores['unlike']['name']}, images of other classes, by AUROC: {aurocs}.")
    head = ["corruption", *(f"severity {s}" for s in range(1, SEVERITIES + 1))]
    return section("Robustness", bullet_list(lines) + content + table(head, rows))


def _legend(names: Iterable[str]) -> str:
    """The names of a chart's series in their colours."""
    spans = (f'<span style="color:var(--c{n})">{name}</span>' for n, name in enumerate(names))
    return f'<p class="faint">{", ".join(spans)}</p>'


def render_search(result: dict[str, Any]) -> str:
    """A summary of a search, of which search.html has the details."""
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    content = f"<p>{escape(trials)} trials in {result['seconds'] / 60:.1f} minutes; best trial: "
    content += f"{escape(result['winner'])}, validation accuracy {result['selection']['accuracy']:.2%}.</p>"
    if result["importance"]:
        content += bars(result["importance"], "importance of each setting")
    return section("Search", content, "Details: search.html, in the same folder.")
