"""Model cards: what a model was trained on, how well it does, and its limitations (Mitchell et al. 2019)."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from classifier.bundle.bundle import Bundle
from classifier.bundle.test_reads import describe_test_reads
from classifier.report import sentences
from classifier.report.numbers import format_classes
from classifier.report.sections import label_sections
from classifier.storage.atomic import write_atomically
from classifier.text import show

if TYPE_CHECKING:
    from jinja2 import Template

# In a run folder, and in a bundle's, where it has a header of metadata.
NAME, HUB_NAME = "model_card.md", "README.md"
_HUB_METRICS = {"accuracy": "accuracy", "f1": "macro_f1"}
_HUB_LABEL_METRICS = {"mean_average_precision": "map", "f1": "micro_f1"}
# Classes that are listed; of the table of scores, those with the lowest F1.
MAX_CLASS_ROWS = 30


def write(folder: Path, bundle: Bundle, test_reads: int, split: str, by_folds: str = "") -> Path:
    """Write the model card of a run's bundle; in the bundle's folder, too, where the Hugging Face hub looks for it.

    test_reads: how often its test split was read; split: the split whose scores it has, "" for none; by_folds: by which
    folds they were measured, if they were.
    """
    scores = bundle.scores[split] if split else None
    words = label_sections if bundle.task == "multilabel" else sentences
    text = _template().render(
        bundle=bundle,
        split=split,
        by_folds=by_folds,
        summary=words.summarize(scores, is_test=split == "test", by_folds=by_folds) if scores else "",
        sentences=list(words.describe_scores(scores)) if scores else (),
        classes=format_classes(scores)[:MAX_CLASS_ROWS] if scores else (),
        max_classes=MAX_CLASS_ROWS,
        test_reads=describe_test_reads(test_reads),
    )
    write_atomically(folder / NAME, text)
    if (bundle_folder := folder / "bundle").is_dir():
        header = yaml.safe_dump(describe_for_hub(bundle, split), sort_keys=False, allow_unicode=True)
        write_atomically(bundle_folder / HUB_NAME, f"---\n{header}---\n{text}")
    return folder / NAME


def describe_for_hub(bundle: Bundle, split: str) -> dict[str, Any]:
    """The metadata of a model card, as the Hugging Face hub reads it: task, library, and scores on one split."""
    is_timm = bundle.model["name"].startswith("timm/") and not bundle.model.get("widths")
    about: dict[str, Any] = {
        "pipeline_tag": "image-classification",
        "library_name": "timm" if is_timm else "classifier-jobs",
        "tags": ["image-classification", "classifier-jobs"],
    }
    if split and (scores := bundle.scores[split]):
        name = show(bundle.dataset["name"])
        keys = _HUB_LABEL_METRICS if bundle.task == "multilabel" else _HUB_METRICS
        values = {kind: scores[key] for kind, key in keys.items() if scores[key] is not None}
        metrics = [{"type": kind, "value": round(value, 4)} for kind, value in values.items()]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": name, "type": "imagefolder", "split": split},
            "metrics": metrics,
        }
        about["model-index"] = [{"name": f"{show(bundle.model['name'])} on {name}", "results": [result]}]
    return about


@functools.cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("classifier.report"),
        finalize=escape_markdown,  # what is inserted, not the template
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md")


# What Markdown or HTML would interpret. Underscores inside a word, as in resnet9_16, have no meaning.
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$#!{}]|\b_|_\b|(?<!\w)_|:(?=//)|(?<=www)\.|@(?=\w)")
# At the start of a line it would make a list or a heading.
_LEADING = re.compile(r"^(\s*)([-+=]|(\d+)([.)])(?=\s|$))")


def escape_markdown(value: object) -> object:
    """Escape what Markdown or HTML would interpret in a text, and put it on one line."""
    if isinstance(value, int | float):
        return value
    text = _MARKUP.sub(lambda match: f"\\{match[0]}", show(value))
    return _LEADING.sub(lambda match: f"{match[1]}{match[3] or ''}\\{match[4] or match[2]}", text)
