"""Report sections about one model: training curves, confusions, scores by class, calibration, hard examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from classifier.bundle.bundle import Bundle
from classifier.evaluation.calibrate import describe_folds
from classifier.evaluation.hard_examples import UNSURE, WRONG
from classifier.metrics.calibration import coverage_curve, reliability_bins
from classifier.metrics.decisions import Calibration
from classifier.metrics.hierarchy import Hierarchy
from classifier.metrics.intervals import wilson
from classifier.report import sentences
from classifier.report.charts import TASK_SCORES, draw_by_epoch
from classifier.report.figure import COLOURS, LINE, VALIDATION, create_axes, format_shares, render_chart
from classifier.report.images import embed_jpeg
from classifier.report.numbers import (
    LABEL_SCORE_NAMES,
    SCORE_NAMES,
    count_images,
    format_classes,
    format_proportion,
    format_share,
    format_with_interval,
)
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


def build_training(history: Sequence[dict[str, Any]], counts: Mapping[str, int], by_folds: str = "") -> Section:
    """Training and validation curves of the epochs in a history. counts: images of the splits, by name.

    by_folds: by which folds a probe was validated, if it was.
    """
    blocks: list[Block] = []
    diagnosis = sentences.diagnose_fit(history, counts)
    if diagnosis:
        blocks.append(Text(diagnosis))
    speeds = [row["images_per_second"] for row in history if row["images_per_second"]]
    duration = (
        f"{len(history)} epoch{'s' if len(history) > 1 else ''} in {sum(row['seconds'] for row in history):,.0f} s"
    )
    duration += f", {speeds[-1]:,.0f} images/s" if speeds else ""
    duration += f", validated {by_folds}" if by_folds else ""
    blocks.append(Text(f"{duration}. The ring marks the epoch whose model was saved.", "faint"))
    charts = [draw_by_epoch(history, score) for score in (*TASK_SCORES, "accuracy", "loss")]
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
    columns = {"name": "class", "precision": "precision", "recall": "recall", "f1": "F1", "interval": "F1, 95 % CI"}
    is_multilabel = "confusion" not in scores
    if is_multilabel:
        columns |= {"average_precision": "average precision", "threshold": "threshold"}
    columns |= {"roc_auc": "ROC AUC", "images": "images"}
    rows = format_classes(scores)
    lines = [[row[name] for name in columns] for row in rows[:MAX_CLASS_ROWS]]
    more = describe_hidden(MAX_CLASS_ROWS, len(rows), "classes with a higher F1")
    by_class = Section("Classes", [Table([*columns.values()], lines), *more], "Lowest F1 first.")
    names = LABEL_SCORE_NAMES if is_multilabel else SCORE_NAMES
    values = [[title, *format_with_interval(scores, name)] for name, title in names.items() if name in scores]
    note = "CI: confidence interval, by Wilson's method for shares of images and by a bootstrap for other scores."
    overall = Section("All scores", [Table(["score", "", "95 % CI"], values)], note)
    return [by_class, overall]


def build_levels(scores: dict[str, Any]) -> Section:
    """A table of the scores of nested classes at each level, the leaves last."""
    leaves = {"depth": "leaves", "classes": len(scores["per_class"]), **scores}
    rows = [
        [
            f"{row['depth']}",
            f"{row['classes']:,}",
            *format_with_interval(row, "accuracy"),
            *format_with_interval(row, "macro_f1"),
        ]
        for row in (*scores["levels"], leaves)
    ]
    note = "Level 1 is the outermost. What is predicted at a level is the class whose classes are most likely together."
    return Section("Levels", [Table(["level", "classes", "accuracy", "95 % CI", "macro F1", "95 % CI"], rows)], note)


def build_calibration(bundle: Bundle | None, probabilities_NK: Tensor, labels_N: Tensor, split: str) -> Section:
    """Reliability diagram, accuracy against coverage, prediction sets and thresholds, on the given split."""
    lines = [*_describe_rejection(probabilities_NK, labels_N)]
    if bundle is not None and bundle.calibration:
        calibration = Calibration.from_dict(bundle.calibration)
        lines += _describe_sets(calibration, probabilities_NK, labels_N)
        if bundle.hierarchy and calibration.ancestor_threshold is not None:
            lines.append(_describe_ancestors(calibration, bundle.hierarchy, probabilities_NK, labels_N))
        lines += sentences.describe_fit(calibration, describe_folds(bundle), split)
    charts = [_draw_reliability(probabilities_NK, labels_N), _draw_coverage(probabilities_NK, labels_N)]
    note = (
        "Points below the diagonal are overconfident, points above it underconfident, unless their 95 % confidence "
        "interval (the bar) reaches it."
    )
    return Section("Calibration", [Bullets(lines), Charts(charts)], note)


def _describe_rejection(probabilities_NK: Tensor, labels_N: Tensor) -> Iterator[str]:
    """The accuracy without the least confident predictions, where some are less confident than others."""
    confidence_N = probabilities_NK.amax(1)
    order_N = confidence_N.argsort(descending=True, stable=True)
    least = float(confidence_N[order_N[max(1, round((1 - REJECTED_SHARE) * len(labels_N))) - 1]])
    is_kept_N = confidence_N >= least  # equally confident ones too, or their order would decide
    kept, rejected = int(is_kept_N.sum()), int((~is_kept_N).sum())
    if rejected:
        correct = int((probabilities_NK.argmax(1) == labels_N)[is_kept_N].sum())
        yield (
            f"Rejecting the {rejected:,} least confident of {len(labels_N):,} predictions leaves an accuracy of "
            f"{format_proportion(correct, kept)}."
        )


def _describe_sets(calibration: Calibration, probabilities_NK: Tensor, labels_N: Tensor) -> list[str]:
    sets_NK, count = calibration.prediction_sets(probabilities_NK), len(labels_N)
    covered = int(sets_NK[range(count), labels_N].sum())
    sizes_N = sets_NK.sum(1)
    lines = [
        f"Prediction sets contain the true class in {format_proportion(covered, count)}; target "
        f"{format_share(calibration.coverage)}. They have {sizes_N.mean():.2f} classes on average."
    ]
    if calibration.thresholds is None:
        several = int((sizes_N > 1).sum())
        lines.append(f"Undecided, because the set has several classes: {format_proportion(several, count)}.")
    else:
        decisions_N = calibration.decide(probabilities_NK)
        decided, correct = int((decisions_N >= 0).sum()), int((decisions_N == labels_N.numpy()).sum())
        accuracy = f", with an accuracy of {format_proportion(correct, decided)}" if decided else ""
        lines.append(
            f"Thresholds for {calibration.target} assign a class to {decided:,} of {count_images(count)}{accuracy}."
        )
    return lines


def _describe_ancestors(
    calibration: Calibration, hierarchy: Hierarchy, probabilities_NK: Tensor, labels_N: Tensor
) -> str:
    """How often the answer is a class above the leaves, and how often that is right."""
    ancestors_N = calibration.decide(probabilities_NK, hierarchy) - len(hierarchy.leaves)
    is_above_N = ancestors_N >= 0
    holds_N = hierarchy.in_AK[ancestors_N[is_above_N], labels_N.numpy()[is_above_N]]
    if not len(holds_N):
        return "No answer is a class above the leaves."
    return (
        f"Where no class is sure enough, one above it may be: so on {len(holds_N):,} of {count_images(len(labels_N))}. "
        f"It holds the true class in {format_proportion(int(holds_N.sum()), len(holds_N))}."
    )


def describe_thresholds(bundle: Bundle, probabilities_NK: Tensor, labels_N: Tensor) -> Iterator[str]:
    """A line on the threshold of each class, and on how many of these images it reaches its target."""
    calibration = Calibration.from_dict(bundle.calibration or {"images": 0})
    is_precision = (calibration.target or "").startswith("precision")
    for k, threshold in enumerate(calibration.thresholds or ()):
        if threshold is None:
            yield f"{bundle.class_names[k]}: never predicted"
            continue
        above_N, is_class_N = probabilities_NK[:, k] >= threshold, labels_N == k
        count = int((above_N if is_precision else is_class_N).sum())
        text = f"{bundle.class_names[k]}: threshold {format_share(threshold)}"
        if count:
            hits = int((above_N & is_class_N).sum())
            text += f", {'precision' if is_precision else 'recall'} {format_proportion(hits, count)}"
        yield text


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
    rows: Sequence[Mapping[str, Any]],
    split: str,
    by_folds: str = "",
    link_image: Callable[[str], str] = lambda image_id: "",
) -> Section:
    """Cards of a split's most confident errors and least confident predictions.

    by_folds: by which folds they were predicted, if they were. link_image: returns the URL of an image by its id; "" if
    it is not a file.
    """
    blocks: list[Block] = []
    titles = {WRONG: "Most confident errors", UNSURE: "Least confident predictions"}
    for kind, title in titles.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if of_kind:
            blocks += [Heading(title), Cards([_build_card(row, link_image) for row in of_kind])]
    source = f"Predicted {by_folds}" if by_folds else f"From the {split} images"
    note = (
        f"{source}. Orange: regions that support the predicted class (Grad-CAM). Below: the training images with the "
        "most similar features. Some errors may be wrong labels. Click an image to enlarge it."
    )
    return Section("Hard examples", blocks, note)


def _build_card(row: Mapping[str, Any], link_image: Callable[[str], str]) -> Card:
    id_, label, predicted = row["image_id"], row["label"], row["predicted"]
    shown = row.get("class_name") or predicted  # one of several labels
    outcome = "correct" if label == predicted else f"label: {label}"
    title = f"{predicted} ({row['probability']:.0%}), {outcome}"
    if shown != predicted:
        title = f"{predicted}; {shown} {row['probability']:.0%}; {outcome}"
    images = [
        embed_jpeg(row["picture"], f"{id_}, predicted {title}", link_image(id_)),
        embed_jpeg(row["map"], f"regions of {id_} that support {shown} (Grad-CAM)"),
    ]
    neighbours = zip(row["like_pictures"], row["like_ids"], row["like_labels"], strict=True)
    similar = [
        embed_jpeg(jpeg, f"training image {id_}, label: {label}", link_image(id_)) for jpeg, id_, label in neighbours
    ]
    faint_line = f"nearest training images: {', '.join(row['like_labels'])}" if similar else ""
    return Card([images, similar], title, [id_], faint_line)
