"""Where answers are kept: a folder here or in storage, with a file per part, and documents that say what it answers.

`part-00000.parquet`, ... are written whole or not at all. `_parts/00000.json`, written after its file, says what the
part answers; `_answers.json` which model answered, and how. Readers of data sets in Parquet leave out names with `_`.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from classifier.answers.folders import open_folder
from classifier.config.documents import Count, parse_json
from classifier.errors import RunError

if TYPE_CHECKING:
    from classifier.answers.listing import Part

FORMAT_VERSION = 1
DOCUMENT, PARTS = "_answers.json", "_parts"
REMEDY = "remove that folder, or choose another --answers"


class Settings(TypedDict):
    """What decides the answers to an image, and how they are written. A part is not mixed with one of others."""

    model: str
    """SHA-256 of what the model is: weights, class names, preprocessing, calibration, out-of-distribution detector."""
    engine: str
    """What computes: torch, or the format, precision and checksums of an export."""
    format: Literal["parquet", "csv", "jsonl"]
    part_size: Count
    top: Count
    probabilities: bool
    features: bool
    limits: dict[str, float]
    """Of an image: max_pixels, max_bytes, max_seconds."""
    inputs: list[str]


class AnswersDocument(TypedDict):
    """_answers.json."""

    format_version: int
    settings: Settings
    class_names: list[str]
    bundle: str
    """Path of the model, as it was given."""
    is_finished: bool
    parts: Count
    images: Count
    unreadable: Count


class PartDocument(TypedDict):
    """_parts/00000.json."""

    format_version: int
    inputs: str
    """Part.fingerprint."""
    images: Count
    unreadable: Count
    bytes: Count
    sha256: str


class AnswerStore:
    """The answers in one folder, by these settings. ImportError if their format needs pyarrow, which is missing."""

    def __init__(self, path: str, settings: Settings) -> None:
        if settings["format"] == "parquet":
            import pyarrow.parquet  # noqa: F401 - now: not after an hour of work
        self.path, self.settings = path, settings
        self.folder = open_folder(path)

    def file_name(self, number: int) -> str:
        return f"part-{number:05d}.{self.settings['format']}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of a folder on this machine. RunError if one is in, or it cannot be written."""
        with self._own_errors():
            lock = self.folder.lock([PARTS])
            lock.__enter__()
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def open(self, class_names: tuple[str, ...], bundle: str) -> None:
        """Begin, or go on. RunError if the place has answers of another model or other settings, or other files."""
        with self._own_errors():
            content = self.folder.read(DOCUMENT)
            others = [] if content else [name for name in self.folder.list_files("") if not name.startswith(".")]
        if others:
            raise RunError(f"{self.path} has files, but no answers: choose another --answers")
        if content is not None:
            document = parse_json(content, f"{self.path}/{DOCUMENT}", AnswersDocument, REMEDY, FORMAT_VERSION)
            self._refuse_others(document["settings"])
        self._write_document(class_names, bundle, (0, 0, 0), is_finished=False)

    def find(self, part: "Part") -> PartDocument | None:
        """Return the document of a part that was answered; None if it was not, or has other images since."""
        with self._own_errors():
            document = self._read_part(part.number)
            if document is None or document["inputs"] != part.fingerprint:
                return None
            return document if self.folder.size(self.file_name(part.number)) == document["bytes"] else None

    def commit(self, part: "Part", unreadable: int, write: Callable[[Path], object]) -> PartDocument:
        """Put a part in place: the file that `write` writes, then its document. RunError if that fails."""
        about: dict[str, Any] = {}

        def write_and_measure(path: Path) -> None:
            write(path)
            with path.open("rb") as file:
                about["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            about["bytes"] = path.stat().st_size

        counts = {"images": len(part.images), "unreadable": unreadable}
        with self._own_errors():
            if self.folder.size(_document_of(part.number)) is not None:
                self.folder.remove(_document_of(part.number))  # of other images, or damaged
            self.folder.put(self.file_name(part.number), write_and_measure)
            document = {"format_version": FORMAT_VERSION, "inputs": part.fingerprint, **counts, **about}
            self._put_json(_document_of(part.number), document)
        return PartDocument(**document)

    def finish(self, class_names: tuple[str, ...], bundle: str, parts: int, images: int, unreadable: int) -> int:
        """Say that all is answered; remove parts beyond the last, of images that are gone. Return how many."""
        with self._own_errors():
            names = self.folder.list_files("")
            numbers = [int(match[1]) for name in names if (match := re.match(r"part-(\d+)\.", name))]
            stale = [number for number in numbers if number >= parts]
            for number in stale:
                self.folder.remove(_document_of(number))
                self.folder.remove(self.file_name(number))
        self._write_document(class_names, bundle, (parts, images, unreadable), is_finished=True)
        return len(stale)

    def _read_part(self, number: int) -> PartDocument | None:
        content = self.folder.read(_document_of(number))
        if content is None:
            return None
        try:
            return parse_json(content, _document_of(number), PartDocument, REMEDY, FORMAT_VERSION)
        except RunError:  # damaged: the part is answered again
            return None

    def _refuse_others(self, found: Settings) -> None:
        what = {"model": "another model", "engine": "another engine", "inputs": "other images"}
        for name, value in self.settings.items():
            if found[name] != value:
                raise RunError(
                    f"{self.path} has answers {'to' if name == 'inputs' else 'of'} "
                    f"{what.get(name, f'other settings ({name} {found[name]}, not {value})')}: {REMEDY}"
                )

    def _write_document(
        self, class_names: tuple[str, ...], bundle: str, counts: tuple[int, int, int], *, is_finished: bool
    ) -> None:
        parts, images, unreadable = counts
        document = AnswersDocument(
            format_version=FORMAT_VERSION,
            settings=self.settings,
            class_names=[*class_names],
            bundle=bundle,
            is_finished=is_finished,
            parts=parts,
            images=images,
            unreadable=unreadable,
        )
        with self._own_errors():
            self._put_json(DOCUMENT, document)

    def _put_json(self, name: str, document: Any) -> None:
        text = json.dumps(document, indent=1, allow_nan=False)
        self.folder.put(name, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    @contextlib.contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be read or written ({error.strerror or error}): repair it, and give the same "
                "command again"
            ) from None


def _document_of(number: int) -> str:
    return f"{PARTS}/{number:05d}.json"
