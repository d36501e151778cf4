"""The report's section on columns that join the image: what they bring, and how much the model relies on each."""

from collections.abc import Callable, Mapping
from typing import Any

from classifier.bundle.bundle import Bundle
from classifier.metrics.intervals import difference_interval
from classifier.report.charts import draw_bars
from classifier.report.numbers import UNKNOWN, count_images, format_share
from classifier.report.page import Block, Charts, Heading, Section, Table, Text, describe_hidden

# Columns of the table and of the chart; the others matter less.
MAX_ROWS, MAX_BARS = 40, 12
WAYS = {
    "image": "image alone",
    "columns": "columns alone",
    "mlp": "network of both",
    "trees": "trees over both",
    "average": "network, averaged with trees over the columns",
}
"""How each way to join them is called."""
_SCORES = {"accuracy": "accuracy", "map": "mean average precision", "quadratic_kappa": "quadratic weighted kappa"}


def build_columns(bundle: Bundle, split: str, by_folds: str) -> Section:
    """The comparison of all ways to join image and columns, and the importance of each input on a split.

    by_folds: by which folds the validation images were predicted, if they were.
    """
    assert bundle.columns is not None
    fusion = bundle.fusion or {}
    blocks: list[Block] = [Text(f"C{bundle.columns.describe()[1:]}")]
    if fusion.get("images"):
        blocks += [Text(describe_gain(fusion)), _tabulate_ways(fusion)]
        blocks.append(Text(_describe_comparison(fusion, by_folds), "faint"))
    measured = fusion.get("importance", {})
    split = split if split in measured else next(iter(measured), "")
    if split:
        blocks += _build_importance(measured[split], f"{split} images{f', {by_folds}' if by_folds else ''}")
    return Section("Columns", blocks)


def describe_gain(fusion: Mapping[str, Any]) -> str:
    """Return a sentence on what columns bring. fusion: a FusionDocument of images that were held out."""
    both, images = fusion[fusion["chosen"]]["accuracy"], fusion["images"]
    alone = {name: fusion[name]["accuracy"] for name in ("image", "columns") if name in fusion}
    if not alone:
        return f"Image and columns together have an accuracy of {format_share(both)}."
    listed = " and ".join(f"the {name} alone {format_share(accuracy)}" for name, accuracy in alone.items())
    text = f"Image and columns together have an accuracy of {format_share(both)}, {listed}"
    better = max(alone, key=lambda name: alone[name])
    gain = both - alone[better]
    low, _ = difference_interval(both, images, alone[better], images)
    if gain <= 0:
        return f"{text}: joining them brings nothing on these images."
    chance = f", which may be chance on {count_images(images)}" if low <= 0 else ""
    return f"{text}: together they gain {100 * gain:.1f} percentage points on the better of the two{chance}."


def _describe_comparison(fusion: Mapping[str, Any], by_folds: str) -> str:
    images = count_images(fusion["images"])
    if by_folds:
        return f"Compared on {images}, {by_folds}."
    text = f"Compared on {images}, held out, after the last epoch; none was mirrored."
    if fusion["chosen"] == "mlp" and len(fusion.keys() & WAYS.keys()) > 1:
        text += " The network that was trained stays unless another model is clearly better, by accuracy and log loss."
    return text


def _tabulate_ways(fusion: Mapping[str, Any]) -> Table:
    ways = [name for name in WAYS if name in fusion]
    rows = [[WAYS[name], format_share(fusion[name]["accuracy"], 2), f"{fusion[name]['loss']:.3f}"] for name in ways]
    chosen = fusion["chosen"]
    return Table(["model", "accuracy", "log loss"], rows, ways.index(chosen) if chosen in ways else None)


def _build_importance(importance: Mapping[str, Any], images: str) -> list[Block]:
    rows = sort_inputs(importance)
    shown = rows[:MAX_ROWS]
    bars = {name_input(row): row["drop"] for row in rows[:MAX_BARS] if row["drop"] is not None}
    deviations = {name_input(row): row["drop_deviation"] for row in rows[:MAX_BARS] if row["drop"] is not None}
    title = head_importance(importance)[1]
    return [
        Heading("Importance of the image and of each column"),
        Text(
            "What the model loses where an input belongs to another image, as it is shuffled among the images "
            f"(permutation importance: mean and standard deviation of {importance['repeats']} repeats, on "
            f"{importance['images']:,} {images}). Of columns that say the same, each seems unimportant."
        ),
        *([Charts([draw_bars(bars, title, deviations, format_points(importance))])] if bars else []),
        Table(head_importance(importance), [format_input(importance, row) for row in shown]),
        *describe_hidden(len(shown), len(rows), "columns that matter less"),
    ]


def sort_inputs(importance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the inputs of an ImportanceDocument: the image, all columns, then each column by its importance."""
    kinds = ("image", "columns", "column")

    def rank(row: Mapping[str, Any]) -> tuple[float, ...]:
        is_column = row["kind"] == "column"
        values = (-(row["drop"] or 0.0), -(row["rise"] or 0.0)) if is_column else ()
        return (kinds.index(row["kind"]), *values)

    return sorted(importance["inputs"], key=rank)


def head_importance(importance: Mapping[str, Any]) -> list[str]:
    """Return the names of the columns of a table whose rows format_input returns."""
    unit = "" if importance["score"] == "quadratic_kappa" else ", points"
    return ["input", f"{_SCORES[importance['score']]} lost{unit}", "log loss added"]


def format_input(importance: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return the row of an input as text: means and standard deviations, in percentage points but for kappa."""
    texts = [name_input(row)]
    for key, write in (("drop", format_points(importance)), ("rise", "{:z.3f}".format)):
        mean, deviation = row[key], row[f"{key}_deviation"]
        texts.append(UNKNOWN if mean is None or deviation is None else f"{write(mean)} ± {write(deviation)}")
    return texts


def format_points(importance: Mapping[str, Any]) -> Callable[[float], str]:
    """Return what writes a difference of the score of an ImportanceDocument."""
    if importance["score"] == "quadratic_kappa":
        return "{:z.3f}".format
    return lambda value: f"{100 * value:z.1f}"


def name_input(row: Mapping[str, Any]) -> str:
    """Return how an input is called; different names for different inputs."""
    return {"image": "the image", "columns": "all columns together"}.get(row["kind"], f"column {row['name']}")
