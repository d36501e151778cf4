"""compress.json: what a compression was asked for, and every model that it has measured, a row each."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from classifier.config.documents import read_json
from classifier.config.fields import NonNegativeFloat, NonNegativeInt, PositiveInt, Range
from classifier.errors import RunError
from classifier.storage.atomic import retry_io, write_atomically

DOCUMENT, FORMAT_VERSION = "compress.json", 1
# Of a folder.
_STEP_NAME = re.compile(r"[a-z]+(-[A-Za-z0-9.-]+)?")
Share = Annotated[float, Range(-1, 1)]
Step = Literal["int8", "views", "prune", "distill", "qat"]
TRAININGS: tuple[Step, ...] = ("prune", "distill", "qat")


class Row(TypedDict):
    """A model as it is served, by ONNX Runtime on this machine."""

    name: str
    step: str
    """The folder of its weights: original, or that of a training."""
    precision: Literal["fp32", "int8"]
    scheme: NotRequired[str | None]
    megabytes: NonNegativeFloat
    milliseconds_1: NonNegativeFloat
    """At batch 1."""
    milliseconds_32: NonNegativeFloat
    images_per_second: NonNegativeFloat
    """At batch 32."""
    accuracy: Share
    """On the images that models are judged on."""
    accuracy_interval: list[Share]
    loss: Share
    """Of accuracy, against the original."""
    loss_interval: list[Share]
    accepted: bool


class CompressDocument(TypedDict):
    """compress.json."""

    format_version: int
    name: str
    """Of the model that is compressed."""
    max_loss: Annotated[float, Range(0, 100)]
    """Points of accuracy."""
    steps: list[Step]
    students: list[str]
    chosen: NotRequired[list[str]]
    """Students, by their speed here."""
    epochs: NotRequired[PositiveInt | None]
    threads: PositiveInt
    teachers: NonNegativeInt
    images: PositiveInt
    """That models are judged on."""
    by_folds: NotRequired[str]
    """By which folds of the training images; else they are of the validation split."""
    rows: list[Row]
    refused: list[str]
    """Steps that were refused, a sentence each."""
    winner: NotRequired[str | None]


def read(folder: Path) -> CompressDocument:
    """Read compress.json of a run folder. RunError if it is corrupted."""
    path, remedy = folder / DOCUMENT, "compress the model again"
    document = read_json(path, CompressDocument, remedy, FORMAT_VERSION)
    for row in document["rows"]:
        if not _STEP_NAME.fullmatch(row["step"]):
            raise RunError(f"{path} is corrupted (step {row['step'][:60]!r}): {remedy}")
    return document


def write(folder: Path, document: CompressDocument) -> None:
    """Write compress.json. RunError if it cannot be written."""
    plain: Any = document
    text = json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    retry_io(lambda: write_atomically(folder / DOCUMENT, text), folder / DOCUMENT)


def describe(row: Row, original: Row, max_loss: float) -> str:
    """Say in a line how fast and how accurate a model is; and that it loses too much, if it does."""
    low, high = (100 * end for end in row["loss_interval"])
    text = f"{row['name']}: {row['milliseconds_1']:.2f} ms an image, {row['milliseconds_32']:.1f} ms for 32"
    if row is original:
        return f"{text}, accuracy {row['accuracy']:.2%}"
    speed = original["milliseconds_1"] / row["milliseconds_1"]
    text += f" ({speed:.2f} times as fast), {100 * row['loss']:+.2f} points lost ({low:+.2f} to {high:+.2f})"
    return text if row["accepted"] else f"{text}: not accepted, it may lose more than {max_loss:g}"
