"""Sentences and report sections about a model of several labels an image."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from classifier.bundle.bundle import Bundle
from classifier.errors import list_few
from classifier.evaluation.calibrate import describe_folds
from classifier.metrics.decisions import DEFAULT_THRESHOLD, Calibration
from classifier.metrics.intervals import mean_interval, sum_interval
from classifier.metrics.multilabel_scores import BINS
from classifier.report import sentences
from classifier.report.figure import COLOURS, LINE, SERIES, VALIDATION, create_axes, format_shares, render_chart
from classifier.report.numbers import (
    count_images,
    format_interval,
    format_proportion,
    format_share,
    format_with_interval,
)
from classifier.report.page import Block, Bullets, Chart, Charts, Section

# Labels whose precision-recall curve is drawn, those of the lowest average precision, and points of a curve.
MAX_CURVES, CURVE_POINTS = len(SERIES), 200


def summarize(scores: dict[str, Any], *, is_test: bool, by_folds: str = "") -> str:
    """Return the mean average precision with its interval, and the images that it was measured on.

    by_folds: by which folds the validation images were predicted, if they were.
    """
    if scores["map"] is None:
        return f"{count_images(scores['count'])} without any label: there is no mean average precision."
    value, interval = format_with_interval(scores, "map")
    text = f"{value} on {count_images(scores['count'])} (95 % confidence interval {interval})"
    if is_test:
        return f"Mean average precision {text}, held out."
    return (
        f"Validation mean average precision {text}{f', {by_folds}' if by_folds else ''}. These images may have been "
        "used for model selection, so expect a lower one on new ones. There are no test scores of this model."
    )


def describe_scores(scores: dict[str, Any]) -> Iterator[str]:
    """Yield sentences on what is right of an image's labels, the baseline, the weakest label and the calibration."""
    micro, micro_interval = format_with_interval(scores, "micro_f1")
    exact = format_proportion(round(scores["subset_accuracy"] * scores["count"]), scores["count"])
    yield f"F1 of all labels together {micro} ({micro_interval}). All labels of an image are right for {exact}."
    rows, cells = scores["per_class"], scores["count"] * len(scores["per_class"])
    present = sum(row["support"] for row in rows)
    wrong, without = format_share(scores["hamming_loss"]), format_share(present / cells)
    worse = ", which is better than the model" if present / cells < scores["hamming_loss"] else ""
    yield f"Of all labels of all images {wrong} are wrong. Baseline: saying none is wrong for {without}{worse}."
    if missing := [row["name"] for row in rows if not row["support"]]:
        yield f"Not judged, as no image has them: {list_few(missing)}."
    yield from _describe_weakest([row for row in rows if row["support"]])
    ece, chance = format_share(scores["ece"]), format_share(scores["ece_by_chance"])
    yield (
        f"Expected calibration error of all labels together {ece}; a perfectly calibrated model has up to {chance} on "
        "as many images."
    )


def _describe_weakest(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The label of the lowest average precision, if it can be told from each other one."""
    if len(rows) < 2:
        return
    rows = sorted(rows, key=lambda row: row["average_precision"])
    lowest = rows[0]
    area, images = format_share(lowest["average_precision"]), count_images(lowest["support"])
    text = f"Lowest average precision: {area} for {lowest['name']} ({images})"
    values = [(row["average_precision"], mean_interval(row["average_precision"], row["support"])) for row in rows]
    rivals = [
        row["name"]
        for row, (value, ends) in zip(rows[1:], values[1:], strict=True)
        if sum_interval((values[0][0], value), (values[0][1], ends), (1, -1))[1] >= 0
    ]
    if rivals:
        few = f"there are too few images to tell whether it is the weakest label, or one of: {list_few(rivals)}"
        yield f"{text}, but {few}."
    else:
        yield f"{text}."


def build_calibration(bundle: Bundle | None, probabilities_NK: Tensor, targets_NK: Tensor, split: str) -> Section:
    """Precision-recall curves, reliability diagram, prediction sets and thresholds, on the given split."""
    lines, names = [], bundle.class_names if bundle is not None else [str(k) for k in range(targets_NK.shape[1])]
    if bundle is not None and bundle.calibration:
        calibration = Calibration.from_dict(bundle.calibration)
        lines += _describe_sets(calibration, probabilities_NK.numpy(), targets_NK.numpy())
        lines += sentences.describe_fit(calibration, describe_folds(bundle), split)
    charts = [_draw_precision_recall(probabilities_NK.numpy(), targets_NK.numpy(), names)]
    charts.append(_draw_reliability(probabilities_NK.numpy(), targets_NK.numpy()))
    note = (
        "Each point of a curve is a threshold; a low one says a label often. In the second chart, points below the "
        "diagonal are overconfident, points above it underconfident."
    )
    blocks: list[Block] = [Bullets(lines)] if lines else []
    return Section("Thresholds and calibration", [*blocks, Charts(charts)], note)


def _describe_sets(calibration: Calibration, probabilities_NK: np.ndarray, targets_NK: np.ndarray) -> Iterator[str]:
    said_NK, sets_NK = calibration.decide_labels(probabilities_NK), calibration.label_sets(probabilities_NK)
    has_some_N = targets_NK.any(1)
    shares_N = (sets_NK & targets_NK).sum(1)[has_some_N] / targets_NK.sum(1)[has_some_N]
    if len(shares_N):
        share, ends = float(shares_N.mean()), mean_interval(float(shares_N.mean()), len(shares_N))
        in_sets, own, said = (of_NK.sum(1).mean() for of_NK in (sets_NK, targets_NK, said_NK))
        yield (
            f"Prediction sets contain {format_share(share)} of an image's labels ({format_interval(ends)}); target "
            f"{format_share(calibration.coverage)}. They have {in_sets:.2f} labels on average, an image {own:.2f}, and "
            f"{said:.2f} are said."
        )
    fitted = [limit for limit in calibration.thresholds or () if limit is not None]
    if calibration.target and fitted:
        yield f"Thresholds for {calibration.target}: from {format_share(min(fitted))} to {format_share(max(fitted))}."


def describe_thresholds(bundle: Bundle, probabilities_NK: Tensor, targets_NK: Tensor) -> Iterator[str]:
    """A line on the threshold of each label, and on its precision and recall on these images."""
    calibration = Calibration.from_dict(bundle.calibration or {"images": 0})
    said_NK, targets = calibration.decide_labels(probabilities_NK.numpy()), targets_NK.numpy()
    thresholds = calibration.thresholds or [DEFAULT_THRESHOLD] * len(bundle.class_names)
    for k, (name, threshold) in enumerate(zip(bundle.class_names, thresholds, strict=True)):
        if threshold is None:
            yield f"{name}: never said"
            continue
        text, hits = f"{name}: threshold {format_share(threshold)}", int((said_NK & targets)[:, k].sum())
        for word, count in (("precision", int(said_NK[:, k].sum())), ("recall", int(targets[:, k].sum()))):
            text += f", {word} {format_proportion(hits, count)}" if count else ""
        yield text


def _draw_precision_recall(probabilities_NK: np.ndarray, targets_NK: np.ndarray, names: Any) -> Chart:
    """The curve of all labels together, and of those with the lowest average precision."""
    figure, axes = create_axes("recall", "precision by recall")
    recalls, precisions, _ = _trace(probabilities_NK.ravel(), targets_NK.ravel())
    axes.plot(recalls, precisions, color=COLOURS["ink"], linewidth=2)
    curves = [(_trace(probabilities_NK[:, k], targets_NK[:, k]), k) for k in np.flatnonzero(targets_NK.any(0)).tolist()]
    curves = sorted(curves, key=lambda curve: curve[0][2])[:MAX_CURVES]
    legend, text = [("all labels together", "ink")], "Precision by recall."
    for colour, ((recalls, precisions, area), k) in zip(SERIES, curves, strict=False):
        axes.plot(recalls, precisions, color=COLOURS[colour], linewidth=1.5)
        legend.append((names[k], colour))
        text += f" {names[k]}: average precision {area:.1%}."
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(format_shares())
    return Chart(render_chart(figure, text), text, tuple(legend))


def _trace(scores_N: np.ndarray, is_label_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return recalls and precisions of a curve, of tied images one point, and the average precision."""
    order_N = np.argsort(-scores_N, kind="stable")
    ends_G = np.flatnonzero(np.r_[scores_N[order_N][1:] != scores_N[order_N][:-1], True])
    hits_G = is_label_N[order_N].cumsum()[ends_G]
    recalls_G, precisions_G = hits_G / max(1, hits_G[-1]), hits_G / (ends_G + 1)
    area = float((np.diff(recalls_G, prepend=0) * precisions_G).sum())
    shown = np.unique(np.searchsorted(recalls_G, np.linspace(0, 1, CURVE_POINTS)).clip(max=len(recalls_G) - 1))
    return recalls_G[shown], precisions_G[shown], area


def _draw_reliability(probabilities_NK: np.ndarray, targets_NK: np.ndarray) -> Chart:
    bins_NK = np.minimum((probabilities_NK * BINS).astype(int), BINS - 1)
    counts_B = np.bincount(bins_NK.ravel(), minlength=BINS)
    said_B, real_B = (np.bincount(bins_NK.ravel(), of_NK.ravel(), BINS) for of_NK in (probabilities_NK, targets_NK))
    known = np.flatnonzero(counts_B)
    confidences, shares = (of_B[known] / counts_B[known] for of_B in (said_B, real_B))
    figure, axes = create_axes("probability of a label", "share of images that have it")
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5)
    style = {"marker": "o", "markersize": 8, "linestyle": "none", "gid": "dots"}
    axes.plot(confidences, shares, color=COLOURS[VALIDATION], **style)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(format_shares())
    rows = zip(confidences.tolist(), shares.tolist(), counts_B[known].tolist(), strict=True)
    points = [f"probability {x:.0%}, share {y:.0%}, {count:,} labels" for x, y, count in rows]
    text = f"Share of images that have a label, by its probability. {'; '.join(points)}."
    return Chart(render_chart(figure, text, points), text)
