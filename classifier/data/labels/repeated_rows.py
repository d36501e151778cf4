"""Several rows of one image: labels of its own in each, or a mistake."""

from collections.abc import Mapping, Sequence

from classifier.data.labels.class_names import clean_label
from classifier.data.labels.separators import MIN_SEVERAL_SHARE
from classifier.data.labels.values import Spelling
from classifier.errors import DataError


class RepeatedRows:
    """The images that a table has listed so far, and the labels of those that it lists several times."""

    def __init__(self, name: str, task: str) -> None:
        """name: of the table. task: data.task."""
        self._name, self._task, self._first_fault = name, task, ""
        self._rows: dict[str, tuple[int, str, Spelling, object]] = {}
        """Id -> index, location, label and the rest of its first row."""
        self._lists: dict[int, list[str]] = {}

    def add(self, where: str, id_: str, shown: str, label: Spelling, rest: object) -> bool:
        """Add a row, and return whether its image is new; if not, it has another label now.

        where: the row's location. shown: what the row calls the image. rest: what all its rows agree in. DataError if
        it is listed twice with the same label, or cannot have another.
        """
        row = (len(self._rows), where, label, rest)
        index, first, first_label, first_rest = known = self._rows.setdefault(id_, row)
        if known is row:
            return True
        line = f"{self._name} {where}: {shown}"
        if not isinstance(label, str) or not isinstance(first_label, str):
            raise DataError(f"{line} is listed already ({first}): write all its labels in one list")
        labels = self._lists.get(index, [first_label])
        if clean_label(label) in map(clean_label, labels):
            raise DataError(f"{line} is listed already ({first}): keep one of the two")
        fault = f"{line} has two labels, {first_label!r} ({first}) and {label!r}: keep one"
        if self._task not in ("auto", "multilabel"):
            raise DataError(f"{fault}, or give --data.task multilabel instead of {self._task}")
        if rest != first_rest:
            raise DataError(
                f"{line} has another split, group or column than before ({first}): give all its rows the same"
            )
        self._first_fault = self._first_fault or fault
        self._lists[index] = [*labels, label]
        return False

    def find_lists(self) -> Mapping[int, Sequence[str]]:
        """Return the labels of the images with several rows, by their indices in the order of the first ones.

        DataError if there are so few that they are a mistake.
        """
        if self._task == "auto" and 0 < len(self._lists) < MIN_SEVERAL_SHARE * len(self._rows):
            raise DataError(f"{self._first_fault}, or give --data.task multilabel: nearly all images have one")
        return self._lists
