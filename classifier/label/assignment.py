"""What is to be answered, and what becomes of the answers: images without a label, or labels that may be wrong."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from classifier.label.answers import Answer

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """An image to answer. key: its number, by which the page asks for it; id: its path in the manifest."""

    key: int
    id: str
    guess: Labels | None = None
    """What the model thinks, with its probability."""
    probability: float | None = None
    label: Labels | None = None
    """The label that it has, which may be wrong."""


class Assignment(abc.ABC):
    """Images, and a manifest that their answers go into. Calls are one at a time."""

    kind: Literal["new", "errors"]
    title: str
    manifest: Path
    folder: Path
    """Where the answers are."""
    is_multilabel: bool

    @abc.abstractmethod
    def list_items(self) -> Sequence[Item]:
        """Return the images in the order in which they are to be answered."""

    @abc.abstractmethod
    def list_classes(self) -> tuple[str, ...]:
        """Return the classes that are known, but for those that only answers name."""

    @abc.abstractmethod
    def find_file(self, key: int) -> Path | None:
        """Return the file of an image; None if there is no such number."""

    @abc.abstractmethod
    def find_key(self, id_: str) -> int | None:
        """Return the number of an image; None if it is not here."""

    @abc.abstractmethod
    def record(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        """Write the manifest by the answers of all annotators, and learn from them."""

    @abc.abstractmethod
    def choose_more(self) -> int:
        """Add images, as many as there were; return how many there are now. 0 if there are no more."""
