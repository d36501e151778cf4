"""model_card.md: what a model was trained on, how well it does, and its limitations (Mitchell et al. 2019)."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.bundle.bundle import Bundle
from classifier.bundle.test_reads import describe_test_reads
from classifier.report import sentences
from classifier.report.numbers import format_classes
from classifier.storage.atomic import write_atomically
from classifier.text import show

if TYPE_CHECKING:
    from jinja2 import Template

# Classes that are listed; of the table of scores, those with the lowest F1.
MAX_CLASS_ROWS = 30


def write(path: Path, bundle: Bundle, test_reads: int, split: str, by_folds: str = "") -> Path:
    """Write the model card of a bundle. test_reads: how often its test split was read; split: the split whose scores it
    has, "" for none; by_folds: by which folds they were measured, if they were."""
    scores = bundle.scores[split] if split else None
    text = _template().render(
        bundle=bundle,
        split=split,
        by_folds=by_folds,
        summary=sentences.summarize(scores, is_test=split == "test", by_folds=by_folds) if scores else "",
        sentences=list(sentences.describe_scores(scores)) if scores else (),
        classes=format_classes(scores)[:MAX_CLASS_ROWS] if scores else (),
        max_classes=MAX_CLASS_ROWS,
        test_reads=describe_test_reads(test_reads),
    )
    write_atomically(path, text)
    return path


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
