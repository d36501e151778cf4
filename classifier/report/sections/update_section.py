"""The report's section on an update: how the models answer old and new test images, and what was forgotten."""

from classifier.report.numbers import format_share
from classifier.report.page import Block, Bullets, Section, Table
from classifier.update.document import Comparison, Name, UpdateDocument

MAX_CLASSES = 40
"""Classes in the table, those that lost most first."""
_NAMES = {"replay": "updated", "memory-alone": "on the memory alone"}


def build_update(document: UpdateDocument) -> Section:
    """The models with their scores, the verdict, and the recall of each old class before and after."""
    blocks: list[Block] = [list_models(document), list_changes(document)] if document["candidates"] else []
    if outcome := document.get("outcome"):
        decided = "Promoted." if outcome["promoted"] else "Not promoted: the earlier model stays."
        blocks.insert(0, Bullets([decided, *(f"{line[:1].upper()}{line[1:]}." for line in outcome["reasons"])]))
    counts = document["counts"]
    note = (
        f"Learned from {counts['new']['train']:,} new images and {counts['old']['train']:,} older ones, as many of "
        "each class. Accuracies are on test images; the intervals are of the change, paired by image. Recall is on the "
        "old test images, which new classes make harder."
    )
    return Section("Update", blocks, note)


def list_models(document: UpdateDocument) -> Table:
    """Return the table of the models: the one before, and those that were trained."""
    head = ("model", "old images", "points, 95 %", "new images", "points, 95 %", "validation", "seconds")
    candidates = document["candidates"]
    first, chosen = candidates[0], _chosen(document)
    rows = [["before", _format_before(first["old"]), "", _format_before(first["new"]), "", "", ""]]
    for one in candidates:
        is_chosen = len(candidates) > 1 and one["name"] == chosen
        name = f"{_NAMES[one['name']]}{', chosen' if is_chosen else ''}"
        validation = "" if one["validation"] is None else format_share(one["validation"], 2)
        rows.append([name, *_format(one["old"]), *_format(one["new"]), validation, f"{one['seconds']:.0f}"])
    return Table(head, rows, bold_row=[one["name"] for one in candidates].index(chosen) + 1)


def list_changes(document: UpdateDocument) -> Table:
    """Return the table of the old classes' recall before and after, what was forgotten most first."""
    chosen = next(one for one in document["candidates"] if one["name"] == _chosen(document))
    changes = sorted(chosen["classes"], key=lambda one: one["after"] - one["before"])
    rows = [
        [
            one["name"],
            f"{one['images']:,}",
            format_share(one["before"], 1),
            format_share(one["after"], 1),
            f"{100 * (one['after'] - one['before']):+.1f}",
        ]
        for one in changes[:MAX_CLASSES]
    ]
    return Table(("old class", "test images", "recall before", "after", "points"), rows)


def _chosen(document: UpdateDocument) -> Name:
    outcome = document.get("outcome")
    return outcome["chosen"] if outcome else document["candidates"][0]["name"]


def _format_before(comparison: Comparison | None) -> str:
    return "" if comparison is None else format_share(comparison["before"], 2)


def _format(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["none", ""]
    low, high = (100 * end for end in comparison["interval"])
    return [format_share(comparison["after"], 2), f"{low:+.1f} to {high:+.1f}"]
