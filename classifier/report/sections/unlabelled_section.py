"""The report's section on unlabelled images: what they brought against the same labels alone."""

from collections.abc import Mapping
from typing import Any

from classifier.report.numbers import format_share
from classifier.report.page import Section, Table, Text

METHODS = {"softmatch": "SoftMatch", "freematch": "FreeMatch", "propagation": "label propagation"}


def build_unlabelled(gain: Mapping[str, Any]) -> Section:
    """gain: an UnlabelledGain."""
    names = ["the labels alone", f"with {gain['images']:,} unlabelled images ({METHODS[gain['method']]})"]
    rows = [[name, format_share(gain[key], 2)] for name, key in zip(names, ("alone", "accuracy"), strict=True)]
    how = "by folds of the training images" if gain["by"] == "folds" else "of validation, in as many steps"
    return Section(
        "Unlabelled images",
        [
            Text(describe_gain(gain), "warning" if is_harm(gain) else ""),
            Table(["training", "accuracy"], rows, int(gain["used"])),
            Text(f"Both with the same seed, compared on the same {gain['judged']:,} images {how}.", "faint"),
        ],
    )


def is_harm(gain: Mapping[str, Any]) -> bool:
    """Whether fewer images are right with unlabelled images, in a model that has learned from them."""
    return gain["used"] and gain["accuracy"] < gain["alone"]


def describe_gain(gain: Mapping[str, Any]) -> str:
    """Return one sentence on what they brought. gain: an UnlabelledGain."""
    low, high = (100 * end for end in gain["interval"])
    points = 100 * (gain["accuracy"] - gain["alone"])
    scores = f"{format_share(gain['accuracy'])} with them, {format_share(gain['alone'])} with the labels alone"
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    start = f"the {gain['images']:,} unlabelled images"
    if not gain["used"]:
        return f"{start} would have cost {-points:.1f} points, so they were left out: {scores} ({interval})"
    if points < 0:
        remedy = "leave data.unlabelled out" if high < 0 else "it may be chance"
        return f"{start} cost {-points:.1f} points: {scores} ({interval}): {remedy}"
    chance = ", which may be chance" if low <= 0 else ""
    return f"{start} brought {points:.1f} points{chance}: {scores} ({interval})"
