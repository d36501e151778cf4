"""Which images were chosen for whom: JSON Lines beside the answers, one for each batch."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.errors import DataError

FILE, LOCK = "batches.jsonl", "batches.lock"


@dataclass(frozen=True)
class Batch:
    """Images that an annotator was given together, by their ids, and how they were chosen."""

    annotator: str
    images: tuple[str, ...]
    way: str


def read_batches(folder: Path) -> list[Batch]:
    """Return the batches of all annotators, in order, without a torn last one. DataError names a line that is none."""
    path = folder / FILE
    content = path.read_bytes() if path.exists() else b""
    batches = []
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
            images = tuple(line["images"])
            if not all(isinstance(one, str) for one in (line["annotator"], line["way"], *images)):
                raise ValueError
            batches.append(Batch(line["annotator"], images, line["way"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DataError(f"{path} line {number} is no batch of images: restore the file, or remove it") from None
    return batches


def add_batch(folder: Path, batch: Batch) -> None:
    """Append a batch, and sync it to disk. The caller holds the lock."""
    path = folder / FILE
    content = path.read_bytes() if path.exists() else b""
    line = json.dumps({"annotator": batch.annotator, "way": batch.way, "images": batch.images})
    with path.open("r+b" if content else "wb") as file:
        file.seek(content.rfind(b"\n") + 1)  # over what a killed process left of a line
        file.truncate()
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def find_shared(batches: Sequence[Batch], annotator: str) -> list[str]:
    """Return the images that others were given and this annotator was not, the oldest first."""
    own = {image for batch in batches if batch.annotator == annotator for image in batch.images}
    others = (image for batch in batches if batch.annotator != annotator for image in batch.images)
    return [image for image in dict.fromkeys(others) if image not in own]
