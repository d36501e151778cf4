"""Labelling: what the page shows, and what its user does. Every answer is on disk before it is confirmed."""

import threading
from typing import Any

from classifier.errors import DataError
from classifier.label.agreement import agree, measure_agreement
from classifier.label.answers import Answer, AnswerLog, read_all
from classifier.label.assignment import Assignment, Item, Labels
from classifier.label.names import check_name
from classifier.text import show


class Labelling:
    """One annotator at work on an assignment. Calls may come from several threads."""

    def __init__(self, assignment: Assignment, log: AnswerLog) -> None:
        self.assignment, self._log = assignment, log
        self._lock = threading.Lock()
        self._answers = read_all(assignment.folder)

    def describe(self) -> dict[str, Any]:
        """Return the state of the work, as the page shows it."""
        with self._lock:
            return self._describe()

    def answer(self, key: int, labels: list[str] | None) -> dict[str, Any]:
        """Record labels of an image, or None to skip it; return the new state. DataError if they cannot be its own."""
        with self._lock:
            item = next((one for one in self.assignment.list_items() if one.key == key), None)
            if item is None:
                raise DataError("this image is not among those to label: reload the page")
            self._add(Answer(item.id, None if labels is None else self._check(labels)))
            return self._describe()

    def resolve(self, image: str, labels: list[str]) -> dict[str, Any]:
        """Settle the label of an image on which annotators disagree; return what they agree on now."""
        with self._lock:
            self._read()
            if image not in agree(self._answers)[1]:
                raise DataError("nobody disagrees on this image any more: reload the page")
            self._add(Answer(image, self._check(labels), is_resolution=True))
            return self._compare()

    def undo(self) -> dict[str, Any]:
        """Take the last answer back; return the new state, with the number of its image as `undone`."""
        with self._lock:
            undone = self._log.undo()
            self._read()
            self.assignment.record(self._answers)
            return self._describe() | {"undone": self.assignment.find_key(undone.image) if undone else None}

    def choose_more(self) -> dict[str, Any]:
        """Choose further images; return the new state, with their number as `added`."""
        with self._lock:
            added = self.assignment.choose_more()
            return self._describe() | {"added": added}

    def compare(self) -> dict[str, Any]:
        """Return how well annotators agree, and the images on which they do not."""
        with self._lock:
            self._read()
            return self._compare()

    def _read(self) -> None:
        """Read the answers of all annotators, some of which other processes write."""
        self._answers = read_all(self.assignment.folder)

    def _add(self, answer: Answer) -> None:
        self._log.add(answer)
        self._read()
        self.assignment.record(self._answers)

    def _check(self, labels: list[str]) -> Labels:
        known = self._list_classes()
        names = tuple(dict.fromkeys(check_name(one, known) for one in labels))
        if not self.assignment.is_multilabel and len(names) != 1:
            raise DataError("an image has one class here: give one")
        return names

    def _list_classes(self) -> list[str]:
        said = (name for entries in self._answers.values() for one in entries for name in one.labels or ())
        return [*dict.fromkeys((*self.assignment.list_classes(), *said))]

    def _describe(self) -> dict[str, Any]:
        standing, assignment = self._log.standing, self.assignment
        rows = [self._describe_item(one, standing.get(one.id)) for one in assignment.list_items()]
        return {
            "kind": assignment.kind,
            "title": show(assignment.title),
            "annotator": self._log.annotator,
            "manifest": show(assignment.manifest),
            "is_multilabel": assignment.is_multilabel,
            "classes": self._list_classes(),
            "items": rows,
            "answered": sum(one.labels is not None for one in standing.values()),
            "can_undo": self._log.last is not None,
            "annotators": len(self._answers),
        }

    @staticmethod
    def _describe_item(item: Item, answer: Answer | None) -> dict[str, Any]:
        return {
            "key": item.key,
            "name": show(item.id),
            "guess": item.guess,
            "probability": item.probability,
            "label": item.label,
            "is_answered": answer is not None,
            "answer": answer.labels if answer else None,
        }

    def _compare(self) -> dict[str, Any]:
        answers, assignment = self._answers, self.assignment
        kappas = measure_agreement(answers, is_multilabel=assignment.is_multilabel)
        return {
            "kappas": [{**vars(one)} for one in kappas],
            "disagreements": [
                {"image": id_, "name": show(id_), "key": assignment.find_key(id_), "said": said}
                for id_, said in agree(answers)[1].items()
            ],
        }
