"""Report sections about one model: training curves, confusions, scores by class, calibration, hard examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from classifier.bundle.bundle import Bundle
from classifier.evaluation.hard_examples import UNSURE, WRONG
from classifier.metrics.calibration import MIN_IMAGES, Calibration, coverage_curve, reliability_bins
from classifier.metrics.intervals import wilson
from classifier.metrics.scores import TOP_K
from classifier.report import sentences
from classifier.report.charts import draw_by_epoch
from classifier.report.figure import COLOURS, LINE, VALIDATION, create_axes, format_shares, render_chart
from classifier.report.images import embed_jpeg
from classifier.report.page import (
    Block,
    Bullets,
    Card,
    Cards,
    Cell,
    Chart,
    Charts,
    Heading,
    Section,
    Table,
    Text,
    describe_hidden,
)

# Largest number of classes with a full confusion matrix; rows of the table of classes and of that of confusions.
MAX_MATRIX_CLASSES, MAX_CLASS_ROWS, CONFUSIONS_SHOWN = 24, 60, 8
# Share of the predictions that is rejected, for the sentence about it.
REJECTED_SHARE = 0.2
# Points of the coverage curve, which is not drawn below the least coverage: few images make it noisy.
COVERAGE_POINTS, MIN_COVERAGE = 100, 0.05
COVERAGES_IN_TEXT = (0.25, 0.5, 0.75, 1.0)
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


def build_training(history: Sequence[dict[str, Any]], counts: Mapping[str, int]) -> Section:
    """Training and validation curves of the epochs in a history. counts: images of the splits, by name."""
    blocks: list[Block] = []
    diagnosis = sentences.diagnose_fit(history, counts)
    if diagnosis:
        blocks.append(Text(diagnosis))
    speeds = [row["images_per_second"] for row in history if row["images_per_second"]]
    duration = (
        f"{len(history)} epoch{'s' if len(history) > 1 else ''} in {sum(row['seconds'] for row in history):,.0f} s"
    )
    duration += f", {speeds[-1]:,.0f} images/s" if speeds else ""
    blocks.append(Text(f"{duration}. The ring marks the epoch whose model was saved.", "faint"))
    charts = [draw_by_epoch(history, score) for score in ("accuracy", "loss")]
    blocks.append(Charts([chart for chart in charts if chart is not None]))
    return Section("Training", blocks)


def build_confusion(scores: dict[str, Any]) -> Section:
    """The confusion matrix, where the classes are few enough, and the most frequent confusions."""
    names = [row["name"] for row in scores["per_class"]]
    blocks: list[Block] = []
    if len(names) <= MAX_MATRIX_CLASSES:
        rows = [
            [names[i][:24], *(_matrix_cell(n, n / max(1, sum(row)), is_correct=i == j) for j, n in enumerate(row))]
            for i, row in enumerate(scores["confusion"])
        ]
        blocks.append(Table(["true \\ predicted", *(name[:14] for name in names)], rows, is_matrix=True))
    confusions = sentences.top_confusions(scores, CONFUSIONS_SHOWN)
    if confusions:
        head = ["true class", "predicted class", "images"]
        blocks.append(Table(head, [(label, predicted, f"{n:,}") for label, predicted, n in confusions], text_columns=2))
    note = "Rows are true classes, columns predicted classes; correct predictions are blue, errors orange."
    return Section("Confusion", blocks, note)


def _matrix_cell(count: int, share: float, *, is_correct: bool) -> Cell:
    """A cell of the confusion matrix; its colour grows with the square root of its share, so that rare errors show."""
    return Cell(f"{count:,}" if count else "", "correct" if is_correct else "wrong", share=0.7 * share**0.5)


def build_classes(scores: dict[str, Any]) -> list[Section]:
    """Two tables: the scores of each class, and the overall scores with confidence intervals."""
    rows = sorted(scores["per_class"], key=lambda row: row["f1"])
    lines = []
    for row in rows[:MAX_CLASS_ROWS]:
        interval, area = row["intervals"]["f1"], row["roc_auc"]
        lines.append(
            [
                row["name"],
                *(f"{row[name]:.1%}" for name in ("precision", "recall", "f1")),
                sentences.format_interval(interval),
                "" if area is None else f"{area:.3f}",
                f"{row['support']:,}",
            ]
        )
    head = ["class", "precision", "recall", "F1", "F1, 95 % CI", "ROC AUC", "images"]
    more = describe_hidden(MAX_CLASS_ROWS, len(rows), "classes with a higher F1")
    by_class = Section("Classes", [Table(head, lines), *more], "Lowest F1 first.")
    values = [[title, *format_with_interval(scores, name)] for name, title in SCORE_NAMES.items()]
    note = "CI: confidence interval, by Wilson's method for shares of images and by a bootstrap for other scores."
    overall = Section("All scores", [Table(["score", "", "95 % CI"], values)], note)
    return [by_class, overall]


def format_with_interval(scores: dict[str, Any], name: str) -> tuple[str, str]:
    """Format a score and its confidence interval; empty for a score that is undefined, or fixed by its definition."""
    ends = scores["intervals"].get(name)
    is_fixed = scores[name] is None or (name == "top5" and len(scores["per_class"]) <= TOP_K)
    interval = "" if is_fixed else "not known, too few errors"
    interval = f"{format_score(name, ends[0])} to {format_score(name, ends[1])}" if ends else interval
    return format_score(name, scores[name]), interval


def format_score(name: str, value: float | None) -> str:
    """Format a score as a percentage, or as a decimal number where it is no share."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" if name in DECIMAL_SCORES else f"{value:.2%}"


def build_calibration(bundle: Bundle | None, probabilities_NK: Tensor, labels_N: Tensor, split: str) -> Section:
    """Reliability diagram, accuracy against coverage, prediction sets and thresholds, on the given split."""
    lines = [_describe_rejection(probabilities_NK, labels_N)]
    if bundle is not None and bundle.calibration:
        calibration = Calibration.from_dict(bundle.calibration)
        lines += _describe_sets(calibration, probabilities_NK, labels_N)
        images = f"{calibration.images:,} validation images"
        if calibration.images < MIN_IMAGES:
            lines.append(f"Not calibrated: {images} are too few to fit a temperature.")
        else:
            fitted = f"Temperature {calibration.temperature:.2f}, fitted on {images}"
            lines.append(fitted + (", the ones evaluated here." if split == "validation" else "."))
    charts = [_draw_reliability(probabilities_NK, labels_N), _draw_coverage(probabilities_NK, labels_N)]
    note = (
        "Points below the diagonal are overconfident, points above it underconfident, unless their 95 % confidence "
        "interval (the bar) reaches it."
    )
    return Section("Calibration", [Bullets(lines), Charts(charts)], note)


def _describe_rejection(probabilities_NK: Tensor, labels_N: Tensor) -> str:
    _, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    kept = max(1, round((1 - REJECTED_SHARE) * len(accuracy_N)))
    accuracy = sentences.format_proportion(round(kept * float(accuracy_N[kept - 1])), kept)
    return f"Rejecting the {REJECTED_SHARE:.0%} least confident predictions leaves an accuracy of {accuracy}."


def _describe_sets(calibration: Calibration, probabilities_NK: Tensor, labels_N: Tensor) -> list[str]:
    sets_NK = calibration.prediction_sets(probabilities_NK)
    covered = int(sets_NK.gather(1, labels_N[:, None]).sum())
    sizes_N = sets_NK.sum(1).double()
    lines = [
        f"Prediction sets contain the true class in {sentences.format_proportion(covered, len(labels_N))}; target "
        f"{calibration.coverage:.1%}. They have {float(sizes_N.mean()):.2f} classes on average."
    ]
    if calibration.thresholds is None:
        several = float((sizes_N > 1).double().mean())
        lines.append(f"Undecided, because the set has several classes: {several:.1%} of images.")
    else:
        decisions_N = calibration.decide(probabilities_NK)
        is_decided_N = decisions_N >= 0
        decided, correct = int(is_decided_N.sum()), int((decisions_N == labels_N)[is_decided_N].sum())
        accuracy = f", with an accuracy of {sentences.format_proportion(correct, decided)}" if decided else ""
        lines.append(
            f"Thresholds for {calibration.target}: {decided / len(labels_N):.1%} of images are assigned a "
            f"class{accuracy}."
        )
    return lines


def _draw_reliability(probabilities_NK: Tensor, labels_N: Tensor) -> Chart:
    bins = reliability_bins(probabilities_NK, labels_N)
    figure, axes = create_axes("confidence", "accuracy by confidence")
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5)
    axes.plot(
        *([confidence for confidence, _, _ in bins], [accuracy for _, accuracy, _ in bins]),
        color=COLOURS[VALIDATION],
        marker="o",
        markersize=8,
        linestyle="none",
        gid="dots",
    )
    low, high = zip(*(wilson(round(accuracy * count), count) for _, accuracy, count in bins), strict=True)
    axes.vlines([confidence for confidence, _, _ in bins], low, high, color=COLOURS[VALIDATION], linewidth=1.5)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(format_shares())
    points = [f"confidence {x:.0%}, accuracy {y:.0%}, {count:,} images" for x, y, count in bins]
    text = f"Accuracy by confidence. {'; '.join(points)}."
    return Chart(render_chart(figure, text, points), text)


def _draw_coverage(probabilities_NK: Tensor, labels_N: Tensor) -> Chart:
    coverage_N, accuracy_N = coverage_curve(probabilities_NK, labels_N)
    indices = np.unique(np.linspace(0, len(coverage_N) - 1, COVERAGE_POINTS).round().astype(int))
    indices = indices[coverage_N[indices] >= MIN_COVERAGE] if len(indices) > 20 else indices
    coverages, accuracies = coverage_N[indices].tolist(), accuracy_N[indices].tolist()
    figure, axes = create_axes("share of images, most confident first", "accuracy on these images")
    axes.plot(coverages, accuracies, color=COLOURS[VALIDATION], linewidth=2)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(top=1 + 0.05 * (1 - min(accuracies)) or None)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(format_shares())
    said = [accuracy_N[max(0, round(share * len(accuracy_N)) - 1)] for share in COVERAGES_IN_TEXT]
    points = [f"{share:.0%} of them: {value:.1%}" for share, value in zip(COVERAGES_IN_TEXT, said, strict=True)]
    text = f"Accuracy on the images that the model is most confident about. {'; '.join(points)}."
    return Chart(render_chart(figure, text), text)


def build_hard_examples(
    rows: list[dict[str, Any]], split: str, link_image: Callable[[str], str] = lambda image_id: ""
) -> Section:
    """Cards of a split's most confident errors and least confident predictions.

    link_image: returns the URL of an image by its id; "" if it is not a file.
    """
    blocks: list[Block] = []
    titles = {WRONG: "Most confident errors", UNSURE: "Least confident predictions"}
    for kind, title in titles.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if of_kind:
            blocks += [Heading(title), Cards([_build_card(row, link_image) for row in of_kind])]
    note = (
        f"From the {split} images. Orange: regions that support the predicted class (Grad-CAM). Below: the training "
        "images with the most similar features. Some errors may be wrong labels. Click an image to enlarge it."
    )
    return Section("Hard examples", blocks, note)


def _build_card(row: dict[str, Any], link_image: Callable[[str], str]) -> Card:
    id_, label, predicted = row["image_id"], row["label"], row["predicted"]
    outcome = "correct" if label == predicted else f"label: {label}"
    title = f"{predicted} ({row['probability']:.0%}), {outcome}"
    images = [
        embed_jpeg(row["picture"], f"{id_}, predicted {title}", link_image(id_)),
        embed_jpeg(row["map"], f"regions of {id_} that support {predicted} (Grad-CAM)"),
    ]
    neighbours = zip(row["like_pictures"], row["like_ids"], row["like_labels"], strict=True)
    similar = [
        embed_jpeg(jpeg, f"training image {id_}, label: {label}", link_image(id_)) for jpeg, id_, label in neighbours
    ]
    faint_line = f"nearest training images: {', '.join(row['like_labels'])}" if similar else ""
    return Card([images, similar], title, [id_], faint_line)
