"""update.json: what an update learned, how its models answer old and new test images, and which of them was kept."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from classifier.config.documents import Count, read_json
from classifier.config.fields import NonNegativeInt, PositiveInt, Range
from classifier.storage.atomic import retry_io, write_atomically

DOCUMENT, FORMAT_VERSION = "update.json", 1
Share = Annotated[float, Range(-1, 1)]
Name = Literal["replay", "memory-alone"]
NAMES: tuple[Name, ...] = ("replay", "memory-alone")


class Comparison(TypedDict):
    """The model before the update and another, on the same test images. Accuracies and their change are fractions."""

    images: PositiveInt
    before: Share
    after: Share
    change: Share
    interval: list[Share]
    """95 %, paired (Agresti and Min 2005)."""


class ClassChange(TypedDict):
    """Recall of an old class, on its old test images."""

    name: str
    images: PositiveInt
    before: Share
    after: Share


class Candidate(TypedDict):
    """A model that the update has trained."""

    name: Name
    seconds: float
    """Of its training."""
    old: Comparison | None
    new: Comparison | None
    """None without such test images."""
    validation: Share | None
    """Its accuracy on the validation images, old and new, or by folds of a linear probe."""
    classes: list[ClassChange]


class Outcome(TypedDict):
    """What an update has decided."""

    chosen: Name
    """The better one on validation images."""
    promoted: bool
    reasons: list[str]


class UpdateDocument(TypedDict):
    """update.json."""

    format_version: int
    model: str
    """Folder of the model that is updated."""
    data: str
    """The new images."""
    memory: NonNegativeInt
    """Training images that are kept."""
    max_loss: Annotated[float, Range(0, 100)]
    """Points of accuracy on the old test images."""
    epochs: PositiveInt | None
    run_epochs: PositiveInt
    """Epochs of the training that the model comes from, before any update."""
    baseline: bool
    """Whether a model is also trained on the memory alone."""
    counts: dict[str, dict[str, Count]]
    """Images by origin (old, new) and split."""
    new_classes: list[str]
    candidates: list[Candidate]
    outcome: NotRequired[Outcome]


def read(folder: Path) -> UpdateDocument:
    """Read update.json of a run folder. RunError if it is corrupted."""
    return read_json(folder / DOCUMENT, UpdateDocument, "update the model again", FORMAT_VERSION)


def write(folder: Path, document: UpdateDocument) -> None:
    """Write update.json. RunError if it cannot be written."""
    plain: Any = document
    text = json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    retry_io(lambda: write_atomically(folder / DOCUMENT, text), folder / DOCUMENT)
