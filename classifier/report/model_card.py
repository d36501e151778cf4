"""model_card.md: what a model was trained on, how well it does, and its limitations (Mitchell et al. 2019)."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.bundle.bundle import Bundle
from classifier.report import sentences
from classifier.report.page import replace_unprintable
from classifier.storage.atomic import write_atomically

if TYPE_CHECKING:
    from jinja2 import Template

# Classes that are listed; of the table of scores, those with the lowest F1.
MAX_CLASS_ROWS = 30


def write(path: Path, bundle: Bundle, result: dict[str, Any], split: str) -> Path:
    """Write the model card of a bundle. split: the split whose scores it has; "" for none."""
    scores = bundle.scores[split] if split else None
    text = _template().render(
        bundle=bundle,
        split=split,
        summary=sentences.summarize(scores, is_test=split == "test") if scores else "",
        sentences=list(sentences.describe_scores(scores)) if scores else (),
        classes=sorted(scores["per_class"], key=lambda row: row["f1"])[:MAX_CLASS_ROWS] if scores else (),
        format_interval=sentences.format_interval,
        max_classes=MAX_CLASS_ROWS,
        test_reads=result.get("test_reads") or 1,
    )
    write_atomically(path, replace_unprintable(text))
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


def escape_markdown(value: object) -> object:
    """Escape what Markdown or HTML would interpret in a text, and put it on one line."""
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() else " " for c in value)
    # Underscores inside a word, as in resnet9_16, have no meaning.
    return re.sub(r"[\\`*\[\]<>|~&$]|\b_|_\b|(?<!\w)_", lambda match: f"\\{match[0]}", text)
