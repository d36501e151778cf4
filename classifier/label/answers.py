"""What an annotator answered: JSON Lines, of which each is on disk before the next image is shown.

A line is an answer, or takes an earlier one back: nothing is ever rewritten, so that a killed process loses nothing. A
line that was cut off in the middle is dropped when the file is opened again.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from classifier.errors import ConfigError, DataError
from classifier.storage.file_lock import open_lock, read_owner

DEFAULT_ANNOTATOR = "me"
_NAME = re.compile(r"[\w-][\w.-]{0,39}")
_PREFIX, _SUFFIX = "answers-", ".jsonl"


@dataclass(frozen=True)
class Answer:
    """What was said of an image. labels: none where it was skipped; perhaps empty of several labels an image."""

    image: str
    labels: tuple[str, ...] | None
    is_resolution: bool = False
    """Settles what annotators disagree on."""


class AnswerLog:
    """The answers of one annotator in a folder. A context that no other process can enter meanwhile.

    ConfigError if the name cannot be that of a file; DataError if another process has it open, or if it is damaged.
    """

    def __init__(self, folder: Path, annotator: str) -> None:
        if not _NAME.fullmatch(annotator):
            raise ConfigError(
                f"--annotator {annotator!r}: give a name of at most 40 letters, digits, dots, hyphens and underscores"
            )
        self.annotator, self.path = annotator, folder / f"{_PREFIX}{annotator}{_SUFFIX}"
        self._lock = open_lock(self.path.with_suffix(".lock"))
        self._entries: list[Answer] = []
        """Answers that were not taken back, in their order."""

    def __enter__(self) -> "AnswerLog":
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            owner = read_owner(self.path.with_suffix(".lock"))
            raise DataError(f"{owner} labels as {self.annotator}, too: end it, or give another --annotator") from None
        content = self.path.read_bytes() if self.path.exists() else b""
        if torn := len(content) - (content.rfind(b"\n") + 1):
            os.truncate(self.path, len(content) - torn)
        self._entries = read_answers(self.path)
        self._file = self.path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()

    @property
    def standing(self) -> dict[str, Answer]:
        """The latest answer to each image, in the order of these answers; without resolutions."""
        return _last_of_each(one for one in self._entries if not one.is_resolution)

    @property
    def last(self) -> Answer | None:
        """The answer that `undo` takes back."""
        return self._entries[-1] if self._entries else None

    def add(self, answer: Answer) -> None:
        """Append an answer, and sync it to disk. OSError if that fails: then it does not count."""
        labels = None if answer.labels is None else list(answer.labels)
        line: dict[str, Any] = {"image": answer.image, "labels": labels}
        if answer.is_resolution:
            line["resolution"] = True
        self._append(line)
        self._entries.append(answer)

    def undo(self) -> Answer | None:
        """Take the last answer back, and return it; None if there is none."""
        if not self._entries:
            return None
        self._append({"undo": True})
        return self._entries.pop()

    def _append(self, line: dict[str, Any]) -> None:
        line["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        start = self._file.tell()
        try:
            self._file.write(json.dumps(line).encode() + b"\n")  # one write, as it is flushed
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._file = _reopen(self._file, self.path, start)
            raise


def read_answers(path: Path) -> list[Answer]:
    """Return the answers of a file that were not taken back, in order. DataError names a line that is none.

    The last line may be incomplete: another process may be writing it.
    """
    entries: list[Answer] = []
    content = path.read_bytes() if path.exists() else b""
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
            if line.get("undo"):
                entries.pop()
                continue
            labels, image = line["labels"], line["image"]
            if not isinstance(image, str) or not _are_labels(labels):
                raise ValueError
            entries.append(Answer(image, None if labels is None else tuple(labels), bool(line.get("resolution"))))
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
            raise DataError(f"{path} line {number} is no answer: restore the file, or remove the line") from None
    return entries


def read_all(folder: Path) -> dict[str, list[Answer]]:
    """Return the answers of all annotators of a folder, by name, as `read_answers`."""
    paths = sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))
    return {path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX): read_answers(path) for path in paths}


def _last_of_each(answers: Iterable[Answer]) -> dict[str, Answer]:
    latest: dict[str, Answer] = {}
    for one in answers:
        latest.pop(one.image, None)
        latest[one.image] = one
    return latest


def _are_labels(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _reopen(file: Any, path: Path, length: int) -> Any:
    """Return the file opened again, without what was written in part."""
    with contextlib.suppress(OSError):  # what is left in the buffer is dropped
        file.close()
    os.truncate(path, length)
    return path.open("ab")
