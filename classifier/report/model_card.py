"""model_card.md: what a model was trained on, how well it does, and its limitations (Mitchell et al. 2019)."""

from pathlib import Path
from typing import Any

from classifier.bundle.bundle import Bundle
from classifier.report import sentences
from classifier.storage.atomic import write_atomically

# Classes that are listed; of the table of scores, those with the lowest F1.
MAX_CLASS_ROWS = 30


def write(path: Path, bundle: Bundle, result: dict[str, Any], split: str) -> Path:
    """Write the model card of a bundle. split: the split whose scores it has; "" for none."""
    write_atomically(path, "\n".join(_lines(bundle, result, split)) + "\n")
    return path


def _lines(bundle: Bundle, result: dict[str, Any], split: str) -> list[str]:
    dataset, names = bundle.dataset, bundle.class_names
    model, settings = bundle.model, bundle.experiment
    counts = ", ".join(f"{count:,} {name}" for name, count in dataset["counts"].items())
    lines = [f"# Classifier for {_escape(dataset['name'])}", ""]
    if split:
        lines += [sentences.summarize(bundle.scores[split], is_test=split == "test"), ""]
    lines += [
        "## Model",
        "",
        f"- architecture: {model['name']}" + (f", pretrained weights {model['weights']}" if model["weights"] else ""),
        f"- input: {bundle.size} x {bundle.size} pixels, channels: {bundle.channels}, fit to a square: {bundle.fit}",
        f"- {len(names)} classes: {', '.join(map(_escape, names[:MAX_CLASS_ROWS]))}"
        + (", ..." if len(names) > MAX_CLASS_ROWS else ""),
        f"- saved: {bundle.provenance['made']}, after epoch {bundle.provenance['epoch']}; seed {settings['seed']}",
        "",
        "## Data",
        "",
        f"- {_escape(dataset['name'])}: {counts} images, fingerprint {dataset['fingerprint']}",
        *(f"- {_escape(finding)}" for finding in dataset.get("findings") or ()),
    ]
    if split:
        lines += ["", *_score_lines(bundle.scores[split], split)]
    lines += ["", "## Limitations", ""]
    lines.append(
        "- Every image is assigned one of these classes, even if it shows none of them: check `likely` (prediction "
        "set) and `is_unlike` (out of distribution) of each prediction."
    )
    lines.append("- The scores hold only for images from the same distribution as its data.")
    if split != "test":
        lines.append("- It has not been tested on held-out images.")
    elif (result.get("test_reads") or 1) > 1:
        lines.append(f"- Its test split was evaluated {result['test_reads']} times.")
    return lines


def _score_lines(scores: dict[str, Any], split: str) -> list[str]:
    lines = [f"## Scores ({split} images)", ""]
    lines += [f"- {_escape(sentence)}" for sentence in sentences.describe_scores(scores)]
    lines += ["", "| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    for row in sorted(scores["per_class"], key=lambda row: row["f1"])[:MAX_CLASS_ROWS]:
        cells = " | ".join(f"{row[name]:.1%}" for name in ("precision", "recall", "f1"))
        lines.append(f"| {_escape(row['name'])} | {cells} | {row['support']:,} |")
    return lines


def _escape(text: str) -> str:
    """Escape a name for a line of Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
