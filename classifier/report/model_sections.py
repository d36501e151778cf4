"""Sections of a report that tell of a model: how it trained, what it confuses, how far to believe it, where to look."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from classifier.bundle.bundle import Bundle
from classifier.evaluation.hard_examples import UNSURE, WRONG
from classifier.metrics.calibration import Calibration, coverage_curve, reliability_bins
from classifier.report import html, sentences
from classifier.report.html import charts, items, section, table
from classifier.report.svg import Axis, Series, plot

# Classes up to which the whole confusion matrix is shown, rows of the table of classes, pairs of confused classes.
MATRIX, CLASSES, PAIRS = 24, 60, 8
# Answers that a model may decline, for the sentence about it.
DECLINED = 0.2


def training(rows: Sequence[dict[str, Any]]) -> str:
    """The curves of a journal's epochs."""
    epochs = [float(row["epoch"]) for row in rows]
    scored = [row for row in rows if row["validation_accuracy"] is not None]
    drawn = []
    for name, unit in (("accuracy", ".0%"), ("loss", ".3g")):
        trained = [row[f"train_{name}"] for row in rows]
        validated = [row[f"validation_{name}"] for row in scored]
        values = [value for value in (*trained, *validated) if value is not None]
        if len(values) < 2:
            continue
        series = [
            Series(
                [e for e, v in zip(epochs, trained, strict=True) if v is not None],
                [v for v in trained if v is not None],
            ),
            Series([float(row["epoch"]) for row in scored], validated, "line", 1),
        ]
        label = f"{name}: training blue, validation orange"
        drawn.append(plot(series, Axis.over(epochs, "epoch"), Axis.over(values, name, unit), label))
    words = sentences.fit(rows)
    note = f"<p>{escape(words)}</p>" if words else ""
    speed = [row["images_per_second"] for row in rows if row["images_per_second"]]
    took = f"{len(rows)} epochs in {sum(row['seconds'] for row in rows):,.0f} s"
    took += f", {speed[-1]:,.0f} images a second" if speed else ""
    legend = '<p class="faint"><span style="color:var(--c0)">training</span>, <span style="color:var(--c1)">validation'
    return section("Training", note + legend + f"</span>; {took}.</p>" + charts(drawn))


def confusion(scores: dict[str, Any]) -> str:
    """What was taken for what."""
    names = [row["name"] for row in scores["per_class"]]
    content = ""
    if len(names) <= MATRIX:
        head = "".join(f"<th>{escape(name[:14])}</th>" for name in names)
        lines = [f"<tr><th>is, was taken for</th>{head}</tr>"]
        for i, row in enumerate(scores["confusion"]):
            whole = max(1, sum(row))
            cells = "".join(_cell(n, n / whole, is_right=i == j) for j, n in enumerate(row))
            lines.append(f"<tr><td>{escape(names[i][:24])}</td>{cells}</tr>")
        content = f'<div class="wide"><table class="matrix">{"".join(lines)}</table></div>'
    pairs = sentences.confused(scores, PAIRS)
    if pairs:
        content += table(["is", "was taken for", "images"], [(a, b, f"{n:,}") for a, b, n in pairs])
    words = "A row is a class, a column what it was taken for; blue is right, orange wrong."
    return section("Confusion", content or "<p>No mistake was made.</p>", words)


def _cell(count: int, share: float, *, is_right: bool) -> str:
    """One of the confusion matrix: its colour grows with the square root of its share, so that few are seen too."""
    colour = f"color-mix(in srgb, var(--c{0 if is_right else 1}) {70 * share**0.5:.0f}%, transparent)"
    return f'<td style="background:{colour}">{count or ""}</td>'


def classes(scores: dict[str, Any]) -> str:
    """Two tables: a row a class, a row a figure of all."""
    rows = sorted(scores["per_class"], key=lambda row: row["f1"])
    lines = []
    for row in rows[:CLASSES]:
        ends, area = row["intervals"]["f1"], row["roc_auc"]
        between = f"{ends[0]:.1%} to {ends[1]:.1%}" if ends else ""
        lines.append(
            [
                row["name"],
                *(f"{row[name]:.1%}" for name in ("precision", "recall", "f1")),
                between,
                "" if area is None else f"{area:.3f}",
                f"{row['support']:,}",
            ]
        )
    head = ["class", "precision", "recall", "F1", "95 % of F1", "ROC AUC", "images"]
    more = f'<p class="faint">and {len(rows) - CLASSES} better ones</p>' if len(rows) > CLASSES else ""
    figures = [
        (words, with_interval(scores, name))
        for name, words in {
            "accuracy": "accuracy",
            "balanced_accuracy": "balanced accuracy",
            "top5": "top-5 accuracy",
            "macro_f1": "macro F1",
            "weighted_f1": "weighted F1",
            "roc_auc": "ROC AUC",
            "average_precision": "average precision",
            "kappa": "Cohen's kappa",
            "mcc": "Matthews correlation",
            "loss": "log loss",
            "brier": "Brier score",
            "ece": "calibration error",
        }.items()
    ]
    all_of_it = table(["figure", "", "95 % interval"], [[words, *pair] for words, pair in figures])
    return section("Classes", table(head, lines) + more, "The weakest first.") + section("All figures", all_of_it)


def with_interval(scores: dict[str, Any], name: str) -> tuple[str, str]:
    """A figure in words, and its interval."""
    ends = scores["intervals"].get(name)
    return figure(name, scores[name]), f"{figure(name, ends[0])} to {figure(name, ends[1])}" if ends else ""


def figure(name: str, value: float | None) -> str:
    """A figure in words."""
    if value is None:
        return "not defined"
    return (
        f"{value:.3f}" if name in ("roc_auc", "average_precision", "kappa", "mcc", "loss", "brier") else f"{value:.2%}"
    )


def belief(made: Bundle | None, probabilities_NK: Tensor, labels_N: Tensor) -> str:
    """Reliability, coverage, sets and thresholds."""
    bins = reliability_bins(probabilities_NK, labels_N)
    ideal = Series([0.0, 1.0], [0.0, 1.0], "thin")
    titles = [f"{count:,} images" for _, _, count in bins]
    dots = Series([c for c, _, _ in bins], [a for _, a, _ in bins], "dots", 1, titles)
    share = Axis(0.0, 1.0, "how sure it is", ".0%")
    diagram = plot([ideal, dots], share, Axis(0.0, 1.0, "how often it is right", ".0%"), "reliability diagram")
    coverage_N, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    places = np.unique(np.linspace(0, len(coverage_N) - 1, 100).round().astype(int))
    places = places[coverage_N[places] >= 0.05] if len(places) > 20 else places
    xs, ys = coverage_N[places].tolist(), accuracy_N[places].tolist()
    answered = plot(
        [Series(xs, ys)],
        Axis(0.0, 1.0, "share of the images that it answers", ".0%"),
        Axis.over([*ys, 1.0], "accuracy of those", ".1%"),
        "accuracy against coverage",
    )
    kept = accuracy_N[max(0, round((1 - DECLINED) * len(accuracy_N)) - 1)]
    lines = [
        f"If it may decline the {DECLINED:.0%} of images that it is least sure of, it is right on {kept:.1%} of the "
        "others."
    ]
    if made is not None and made.calibration:
        known = Calibration.from_dict(made.calibration)
        sets_NK = known.prediction_sets(probabilities_NK)
        held = float(sets_NK.gather(1, labels_N[:, None]).double().mean())
        size = float(sets_NK.sum(1).double().mean())
        several = float((sets_NK.sum(1) > 1).double().mean())
        lines.append(
            f"Asked for sets of classes that hold the right one in {known.coverage:.1%} of all cases, it names "
            f"{size:.2f} classes on the mean, and the right one is among them in {held:.1%}."
        )
        if known.thresholds is None:
            lines.append(f"It says 'not sure' where such a set has several classes: {several:.1%} of these images.")
        else:
            taken_N = known.decide(probabilities_NK)
            sure_N = taken_N >= 0
            right = float((taken_N == labels_N)[sure_N].double().mean()) if sure_N.any() else 0.0
            lines.append(
                f"With thresholds for {known.wish} it takes {float(sure_N.double().mean()):.1%} of these images for a "
                f"class, and is right on {right:.1%} of them."
            )
        lines.append(f"Temperature {known.temperature:.2f}, from {known.images:,} validation images.")
    words = "Dots on the line: as sure as it is right. Below it: too sure of itself."
    return section("How far it can be believed", items(lines) + charts([diagram, answered]), words)


def mistakes(rows: list[dict[str, Any]], split: str) -> str:
    """Cards of the images that a person should look at."""
    content = ""
    titles = {WRONG: "The mistakes that it was surest of", UNSURE: "The answers that it was least sure of"}
    for kind, title in titles.items():
        mine = [row for row in rows if row["kind"] == kind]
        if mine:
            content += f'<h3>{title}</h3><div class="grid">{"".join(map(_card, mine))}</div>'
    words = (
        f"Of the {split} images. Orange is where it saw its answer (Grad-CAM); after it, the training images that the "
    )
    return section("Look at these", content, words + "model finds most alike. A wrong label is a mistake of the data.")


def _card(row: dict[str, Any]) -> str:
    pictures = html.embedded(row["picture"], row["image_id"]) + html.embedded(row["map"], "where it looked", "map")
    likes = zip(row["like_pictures"], row["like_ids"], row["like_labels"], strict=True)
    alike = "".join(html.embedded(jpeg, f"{name}: {label}") for jpeg, name, label in likes)
    labels = ", ".join(row["like_labels"])
    right = row["label"] == row["predicted"]
    said = f"{row['predicted']} {row['probability']:.0%}" + (", right" if right else f"; it is {row['label']}")
    words = f"<b>{escape(said)}</b><br>{escape(row['image_id'])}"
    like_words = f'<br><span class="faint">alike: {escape(labels)}</span>' if labels else ""
    return f'<div class="card">{pictures}<br>{alike}<br>{words}{like_words}</div>'
