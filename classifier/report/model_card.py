"""model_card.md: what a model is for, from what it was made and how well it does (Mitchell et al. 2019)."""

from pathlib import Path
from typing import Any

from classifier.bundle.bundle import Bundle
from classifier.report import sentences
from classifier.storage.atomic import write_atomically

# Rows of the table of classes: the weakest ones.
CLASSES = 30


def write(path: Path, made: Bundle, result: dict[str, Any], split: str) -> Path:
    """Make the card of a bundle at `path`. split: the one whose scores it tells, or '' where there are none."""
    write_atomically(path, "\n".join(_lines(made, result, split)) + "\n")
    return path


def _lines(made: Bundle, result: dict[str, Any], split: str) -> list[str]:
    data, names = made.dataset, made.class_names
    counts = ", ".join(f"{count:,} {name}" for name, count in data["counts"].items())
    lines = [f"# A classifier of {_safe(data['name'])}", ""]
    if split:
        lines += [sentences.of(made.scores[split], is_test=split == "test"), ""]
    settings = made.experiment
    lines += [
        "## Model",
        "",
        f"- architecture: {made.model['name']}" + (f", from {made.model['weights']}" if made.model["weights"] else ""),
        f"- input: {made.size} x {made.size}, {made.channels} channels; pictures are made square by {made.fit}",
        f"- answers: {len(names)} classes: {', '.join(map(_safe, names[:CLASSES]))}" + ", ..." * (len(names) > CLASSES),
        f"- made: {made.provenance['made']}, after epoch {made.provenance['epoch']}, seed {settings['seed']}",
        "",
        "## Data",
        "",
        f"- {_safe(data['name'])}: {counts} images, fingerprint {data['fingerprint']}",
        *(f"- {_safe(finding)}" for finding in data.get("findings") or ()),
    ]
    if split:
        scores = made.scores[split]
        lines += [
            "",
            f"## Scores ({split} images)",
            "",
            *(f"- {_safe(line)}" for line in sentences.details(scores)),
            "",
        ]
        lines += ["| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
        for row in sorted(scores["per_class"], key=lambda row: row["f1"])[:CLASSES]:
            figures = " | ".join(f"{row[name]:.1%}" for name in ("precision", "recall", "f1"))
            lines.append(f"| {_safe(row['name'])} | {figures} | {row['support']:,} |")
    lines += ["", "## Limits", ""]
    lines.append("- It names one of its classes for every picture; trust `likely` and `is_unlike` of its predictions.")
    lines.append("- Its figures are of images like those it was trained on: of others they say nothing.")
    if split != "test":
        lines.append("- It was not tested on images that no choice was made by.")
    elif (result.get("test_reads") or 1) > 1:
        lines.append(f"- Its test images were read {result['test_reads']} times.")
    return lines


def _safe(text: str) -> str:
    """A name as Markdown shows it."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
