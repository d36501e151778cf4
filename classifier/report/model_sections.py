"""Report sections about one model: training curves, confusions, scores by class, calibration, hard examples."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from classifier.bundle.bundle import Bundle
from classifier.evaluation.hard_examples import UNSURE, WRONG
from classifier.metrics.calibration import Calibration, coverage_curve, reliability_bins
from classifier.report import html, sentences
from classifier.report.html import bullet_list, chart_grid, section, table
from classifier.report.svg import Axis, Series, plot

# Largest number of classes with a full confusion matrix; rows of the table of classes and of that of confusions.
MAX_MATRIX_CLASSES, MAX_CLASS_ROWS, CONFUSIONS_SHOWN = 24, 60, 8
# Share of the predictions that is rejected, for the sentence about it.
REJECTED_SHARE = 0.2
# Points of the coverage curve, which is not drawn below the least coverage: few images make it noisy.
COVERAGE_POINTS, MIN_COVERAGE = 100, 0.05
SCORE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "top5": "top-5 accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "kappa": "Cohen's kappa",
    "mcc": "Matthews correlation coefficient",
    "loss": "log loss",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
# Scores that are not shares.
DECIMAL_SCORES = ("roc_auc", "average_precision", "kappa", "mcc", "loss", "brier")


def render_training(history: Sequence[dict[str, Any]]) -> str:
    """Training and validation curves of the epochs in a history."""
    epochs = [float(row["epoch"]) for row in history]
    validated_rows = [row for row in history if row["validation_accuracy"] is not None]
    charts = []
    for name, unit in (("accuracy", ".0%"), ("loss", ".3g")):
        train = [row[f"train_{name}"] for row in history]
        validation = [row[f"validation_{name}"] for row in validated_rows]
        values = [value for value in (*train, *validation) if value is not None]
        if len(values) < 2:
            continue
        series = [
            Series(
                [epoch for epoch, value in zip(epochs, train, strict=True) if value is not None],
                [value for value in train if value is not None],
            ),
            Series([float(row["epoch"]) for row in validated_rows], validation, "line", 1),
        ]
        label = f"{name}: training blue, validation orange"
        charts.append(plot(series, Axis.over(epochs, "epoch"), Axis.over(values, name, unit), label))
    diagnosis = sentences.diagnose_fit(history)
    paragraph = f"<p>{escape(diagnosis)}</p>" if diagnosis else ""
    speeds = [row["images_per_second"] for row in history if row["images_per_second"]]
    duration = f"{len(history)} epochs in {sum(row['seconds'] for row in history):,.0f} s"
    duration += f", {speeds[-1]:,.0f} images/s" if speeds else ""
    legend = '<p class="faint"><span style="color:var(--c0)">training</span>, <span style="color:var(--c1)">validation'
    return section("Training", paragraph + legend + f"</span>; {duration}.</p>" + chart_grid(charts))


def render_confusion(scores: dict[str, Any]) -> str:
    """The confusion matrix, where the classes are few enough, and the most frequent confusions."""
    names = [row["name"] for row in scores["per_class"]]
    content = ""
    if len(names) <= MAX_MATRIX_CLASSES:
        head = "".join(f"<th>{escape(name[:14])}</th>" for name in names)
        lines = [f"<tr><th>true \\ predicted</th>{head}</tr>"]
        for i, row in enumerate(scores["confusion"]):
            images = max(1, sum(row))
            cells = "".join(_matrix_cell(n, n / images, is_correct=i == j) for j, n in enumerate(row))
            lines.append(f"<tr><td>{escape(names[i][:24])}</td>{cells}</tr>")
        content = f'<div class="wide"><table class="matrix">{"".join(lines)}</table></div>'
    confusions = sentences.top_confusions(scores, CONFUSIONS_SHOWN)
    if confusions:
        head = ["true class", "predicted class", "images"]
        content += table(head, [(label, predicted, f"{n:,}") for label, predicted, n in confusions])
    note = "Rows are true classes, columns predicted classes; correct predictions are blue, errors orange."
    return section("Confusion", content, note)


def _matrix_cell(count: int, share: float, *, is_correct: bool) -> str:
    """A cell of the confusion matrix; its colour grows with the square root of its share, so that rare errors show."""
    colour = f"color-mix(in srgb, var(--c{0 if is_correct else 1}) {70 * share**0.5:.0f}%, transparent)"
    return f'<td style="background:{colour}">{count or ""}</td>'


def render_classes(scores: dict[str, Any]) -> str:
    """Two tables: the scores of each class, and the overall scores with confidence intervals."""
    rows = sorted(scores["per_class"], key=lambda row: row["f1"])
    lines = []
    for row in rows[:MAX_CLASS_ROWS]:
        interval, area = row["intervals"]["f1"], row["roc_auc"]
        lines.append(
            [
                row["name"],
                *(f"{row[name]:.1%}" for name in ("precision", "recall", "f1")),
                f"{interval[0]:.1%} to {interval[1]:.1%}" if interval else "",
                "" if area is None else f"{area:.3f}",
                f"{row['support']:,}",
            ]
        )
    head = ["class", "precision", "recall", "F1", "F1, 95 % CI", "ROC AUC", "images"]
    hidden = len(rows) - MAX_CLASS_ROWS
    more = f'<p class="faint">and {hidden} classes with a higher F1</p>' if hidden > 0 else ""
    scores_table = table(
        ["score", "", "95 % CI"], [[title, *format_with_interval(scores, name)] for name, title in SCORE_NAMES.items()]
    )
    by_class = section("Classes", table(head, lines) + more, "Lowest F1 first.")
    return by_class + section("All scores", scores_table, "CI: bootstrap confidence interval.")


def format_with_interval(scores: dict[str, Any], name: str) -> tuple[str, str]:
    """Format a score and its confidence interval."""
    ends = scores["intervals"].get(name)
    interval = f"{format_score(name, ends[0])} to {format_score(name, ends[1])}" if ends else ""
    return format_score(name, scores[name]), interval


def format_score(name: str, value: float | None) -> str:
    """Format a score as a percentage, or as a decimal number where it is no share."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" if name in DECIMAL_SCORES else f"{value:.2%}"


def render_calibration(bundle: Bundle | None, probabilities_NK: Tensor, labels_N: Tensor, split: str) -> str:
    """Reliability diagram, accuracy against coverage, prediction sets and thresholds, on the given split."""
    lines = [_describe_rejection(probabilities_NK, labels_N)]
    if bundle is not None and bundle.calibration:
        calibration = Calibration.from_dict(bundle.calibration)
        lines += _describe_sets(calibration, probabilities_NK, labels_N)
        fitted = f"Temperature {calibration.temperature:.2f}, fitted on {calibration.images:,} validation images"
        lines.append(fitted + (", the ones evaluated here." if split == "validation" else "."))
    charts = [_plot_reliability(probabilities_NK, labels_N), _plot_coverage(probabilities_NK, labels_N)]
    note = "Points below the diagonal are overconfident, points above it underconfident."
    return section("Calibration", bullet_list(lines) + chart_grid(charts), note)


def _describe_rejection(probabilities_NK: Tensor, labels_N: Tensor) -> str:
    _, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    accuracy = accuracy_N[max(0, round((1 - REJECTED_SHARE) * len(accuracy_N)) - 1)]
    return f"Rejecting the {REJECTED_SHARE:.0%} least confident predictions leaves an accuracy of {accuracy:.1%}."


def _describe_sets(calibration: Calibration, probabilities_NK: Tensor, labels_N: Tensor) -> list[str]:
    sets_NK = calibration.prediction_sets(probabilities_NK)
    coverage = float(sets_NK.gather(1, labels_N[:, None]).double().mean())
    sizes_N = sets_NK.sum(1).double()
    lines = [
        f"Prediction sets: {coverage:.1%} contain the true class (target {calibration.coverage:.1%}), with "
        f"{float(sizes_N.mean()):.2f} classes on average."
    ]
    if calibration.thresholds is None:
        several = float((sizes_N > 1).double().mean())
        lines.append(f"Undecided, because the set has several classes: {several:.1%} of images.")
    else:
        decisions_N = calibration.decide(probabilities_NK)
        is_decided_N = decisions_N >= 0
        is_correct_N = (decisions_N == labels_N)[is_decided_N]
        accuracy = float(is_correct_N.double().mean()) if is_decided_N.any() else 0.0
        lines.append(
            f"Thresholds for {calibration.target}: {float(is_decided_N.double().mean()):.1%} of images are assigned a "
            f"class, with an accuracy of {accuracy:.1%}."
        )
    return lines


def _plot_reliability(probabilities_NK: Tensor, labels_N: Tensor) -> str:
    bins = reliability_bins(probabilities_NK, labels_N)
    diagonal = Series([0.0, 1.0], [0.0, 1.0], "thin")
    titles = [f"{count:,} images" for _, _, count in bins]
    dots = Series([confidence for confidence, _, _ in bins], [accuracy for _, accuracy, _ in bins], "dots", 1, titles)
    axes = Axis(0.0, 1.0, "confidence", ".0%"), Axis(0.0, 1.0, "accuracy", ".0%")
    return plot([diagonal, dots], *axes, "reliability diagram")


def _plot_coverage(probabilities_NK: Tensor, labels_N: Tensor) -> str:
    coverage_N, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    indices = np.unique(np.linspace(0, len(coverage_N) - 1, COVERAGE_POINTS).round().astype(int))
    indices = indices[coverage_N[indices] >= MIN_COVERAGE] if len(indices) > 20 else indices
    coverages, accuracies = coverage_N[indices].tolist(), accuracy_N[indices].tolist()
    x = Axis(0.0, 1.0, "coverage: share of images, most confident first", ".0%")
    y = Axis.over([*accuracies, 1.0], "accuracy on these images", ".1%")
    return plot([Series(coverages, accuracies)], x, y, "accuracy against coverage")


def render_hard_examples(rows: list[dict[str, Any]], split: str) -> str:
    """Cards of a split's most confident errors and least confident predictions."""
    content = ""
    titles = {WRONG: "Most confident errors", UNSURE: "Least confident predictions"}
    for kind, title in titles.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if of_kind:
            content += f'<h3>{title}</h3><div class="grid">{"".join(map(_card, of_kind))}</div>'
    note = (
        f"From the {split} images. Orange: regions that support the predicted class (Grad-CAM). Below: the training "
        "images with the most similar features. Some errors may be wrong labels."
    )
    return section("Hard examples", content, note)


def _card(row: dict[str, Any]) -> str:
    images = html.inline_jpeg(row["picture"], row["image_id"]) + html.inline_jpeg(row["map"], "Grad-CAM", "map")
    neighbours = zip(row["like_pictures"], row["like_ids"], row["like_labels"], strict=True)
    neighbour_images = "".join(html.inline_jpeg(jpeg, f"{id_}: {label}") for jpeg, id_, label in neighbours)
    neighbour_labels = ", ".join(row["like_labels"])
    outcome = "correct" if row["label"] == row["predicted"] else f"label: {row['label']}"
    prediction = f"{row['predicted']} ({row['probability']:.0%}), {outcome}"
    caption = f"<b>{escape(prediction)}</b><br>{escape(row['image_id'])}"
    if neighbour_labels:
        caption += f'<br><span class="faint">nearest training images: {escape(neighbour_labels)}</span>'
    return f'<div class="card">{images}<br>{neighbour_images}<br>{caption}</div>'
