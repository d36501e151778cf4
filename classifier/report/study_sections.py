"""Sections of a report that tell of more than one training, or of more than the test images."""

from html import escape
from typing import Any

import numpy as np

from classifier.evaluation.corruptions import GROUPS, SEVERITIES
from classifier.report.html import items, section, table
from classifier.report.model_sections import figure, with_interval
from classifier.report.svg import Axis, Series, bars, plot


def folds(folds: dict[str, Any]) -> str:
    """A row a fold of a cross-validation."""
    names = list(folds)
    rows = [
        [f"fold {n + 1}", *(figure(name, folds[name]["folds"][n]) for name in names)]
        for n in range(len(folds[names[0]]["folds"]))
    ]
    means = [f"{figure(name, folds[name]['mean'])} ± {figure(name, folds[name]['deviation'])}" for name in names]
    words = "Each fold was left out once, and tested by a model that never saw it."
    head = ["", *(name.replace("_", " ") for name in names)]
    return section("Folds", table(head, [*rows, ["mean ± deviation", *means]], bold=len(rows)), words)


def curve(curve: dict[str, Any]) -> str:
    """Accuracy against the number of training images, and its forecast."""
    points = curve["points"]
    sizes = [float(point["images"]) for point in points]
    series = [
        Series(sizes, [point["train"] for point in points]),
        Series(sizes, [point["validation"] for point in points], "line", 1),
        Series(sizes, [point["validation"] for point in points], "dots", 1),
    ]
    ahead = [(float(images), value) for images, value in curve["predicted"].items()]
    if ahead:
        series.append(
            Series([sizes[-1], *(x for x, _ in ahead)], [points[-1]["validation"], *(y for _, y in ahead)], "thin", 1)
        )
    xs, ys = [x for one in series for x in one.xs], [y for one in series for y in one.ys]
    chart = plot(
        series, Axis.over(xs, "training images", ",.0f", log=True), Axis.over(ys, "accuracy", ".0%"), "learning curve"
    )
    rows = [[f"{p['images']:,}", f"{p['train']:.2%}", f"{p['validation']:.2%}"] for p in points]
    rows += [[f"{int(images):,}", "", f"about {value:.2%}"] for images, value in ahead]
    words = "Training blue, validation orange; the thin line is the power law's forecast."
    return section("Learning curve", chart + table(["images", "training", "validation"], rows), words)


def robustness(robust: dict[str, Any]) -> str:
    """Accuracy under corruptions and attacks, on a second data set, and on images of none of the classes."""
    corruptions = robust["corruptions"]
    severities = [0.0, *map(float, range(1, SEVERITIES + 1))]
    series, rows = [], []
    for n, (_group, kinds) in enumerate(GROUPS.items()):
        means = [float(np.mean([corruptions["kinds"][kind][s] for kind in kinds])) for s in range(SEVERITIES)]
        series.append(Series(severities, [corruptions["clean"], *means], "line", n))
        rows += [[kind.replace("_", " "), *(f"{v:.1%}" for v in corruptions["kinds"][kind])] for kind in kinds]
    legend = ", ".join(f'<span style="color:var(--c{n})">{group}</span>' for n, group in enumerate(GROUPS))
    words = f"Right on {corruptions['clean']:.1%} of {corruptions['images']:,} clean images, and on "
    lines = [f"{words}{corruptions['mean']:.1%} of them when they are corrupted, on the mean."]
    axes = Axis(0, SEVERITIES, "severity"), Axis(0.0, 1.0, "accuracy", ".0%")
    content = plot(series, *axes, "accuracy under corruptions") + f'<p class="faint">{legend}</p>'
    attacks = robust.get("attacks")
    if attacks:
        xs = [0.0, *map(float, attacks["epsilons"])]
        curves = [
            Series(xs, [corruptions["clean"], *attacks[name]], "line", n) for n, name in enumerate(("fgsm", "pgd"))
        ]
        axes = Axis(0, xs[-1], "each value moved by so many 255ths, on purpose"), Axis(0.0, 1.0, "accuracy", ".0%")
        content += plot(curves, *axes, "accuracy under attack")
        content += (
            '<p class="faint"><span style="color:var(--c0)">FGSM</span>, <span style="color:var(--c1)">PGD</span></p>'
        )
        told = max(attacks["auroc"].items(), key=lambda item: item[1])
        lines.append(f"Attacked images are told from clean ones with an AUROC of {told[1]:.2f} ({told[0]}).")
    if "shift" in robust:
        between = with_interval(robust["shift"], "accuracy")[1]
        lines.append(
            f"On {robust['shift']['name']}, a second set of the same classes, it is right on "
            f"{robust['shift']['accuracy']:.1%} ({between})."
        )
    if "unlike" in robust:
        told = ", ".join(f"{name} {value:.3f}" for name, value in robust["unlike"]["auroc"].items())
        lines.append(
            f"{robust['unlike']['name']}, images of none of its classes, are told from its own with an AUROC of {told}."
        )
    head = ["corruption", *(f"severity {s}" for s in range(1, SEVERITIES + 1))]
    return section("Robustness", items(lines) + content + table(head, rows))


def search(result: dict[str, Any]) -> str:
    """What a search tried; search.html has all of it."""
    trials = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    content = f"<p>{escape(trials)} trials in {result['seconds'] / 60:.1f} minutes; {escape(result['winner'])} won "
    content += f"with {result['selection']['accuracy']:.2%} validation accuracy.</p>"
    if result["importance"]:
        content += bars(result["importance"], "importance of each setting")
    return section("Search", content, "All of it: search.html, beside this page.")
