"""The manifest that answers become: a CSV table which is extended, and whose rows of other images stay as they are."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from classifier.data.readers.csv_rows import find_dialect, open_text
from classifier.data.readers.manifests.image_folder import ImageFolder
from classifier.data.readers.manifests.manifest import read_manifest
from classifier.errors import DataError
from classifier.label.agreement import Agreed
from classifier.storage.atomic import write_atomically
from classifier.storage.file_lock import hold_lock
from classifier.text import escape_surrogates, unescape_surrogates

PATH, LABEL, ANNOTATOR = "path", "label", "annotator"
_RECORD, _LOCK = "manifest.json", "manifest.lock"


@dataclass
class _Table:
    names: list[str]
    rows: list[list[str]]
    delimiter: str = ","

    def add_column(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)

    def position(self, name: str) -> int:
        """The column of this name in any letters; labels is label, too."""
        folded = [one.strip().casefold() for one in self.names]
        return folded.index(name) if name in folded else folded.index(f"{name}s")


class LabelManifest:
    """A manifest, of which the rows of some images belong to this program: those of `given`.

    path: of a CSV table, there or not. folder: of the answers, which keeps what was written last, so that a change by
    hand is noticed. DataError if the table cannot be extended.
    """

    def __init__(self, path: Path, folder: Path, *, is_multilabel: bool, has_annotators: bool) -> None:
        self.path = Path(os.path.abspath(path))
        if self.path.suffix.lower() != ".csv":
            raise DataError(f"--manifest {path}: give a file that ends with .csv")
        self._folder, self._images = folder, ImageFolder(self.path, allows_outside=True)
        self._is_multilabel, self._has_annotators = is_multilabel, has_annotators

    def name(self, file: Path) -> str:
        """Return the path of an image in the manifest: relative to its folder, or absolute outside of it."""
        return self._images.id_of(Path(os.path.abspath(file)))

    def read_labels(self) -> tuple[dict[str, tuple[str, ...]], bool]:
        """Return the labels of the images by path, and whether they may be several an image; none without a file."""
        if not self.path.exists() or not (table := _read_table(self.path)).rows:
            return {}, False
        source = read_manifest(self.path, outside=True)
        label = table.position(LABEL)
        if source.label_sets is not None and any(row[label].strip()[:1] not in ("", "[") for row in table.rows):
            raise DataError(
                f"{self.path} has its lists of labels as text: write them as JSON lists, or give another --manifest"
            )
        sets, names = source.label_sets, source.class_names
        of = [tuple(names[k] for k in one) for one in sets] if sets is not None else [(name,) for name in names]
        return {id_: of[n] for id_, n in zip(source.ids, source.labels_N.tolist(), strict=True)}, sets is not None

    def check(self, given: Collection[str], agreed: Mapping[str, Agreed]) -> None:
        """DataError if somebody else has changed a row of ours since it was written."""
        if not self.path.exists() or self._digest() in self._read_record():
            return
        table, own = _read_table(self.path), self._rows(agreed)
        path, label = table.position(PATH), table.position(LABEL)
        for row in table.rows:
            id_ = self._to_id(row[path])
            if id_ in given and (id_ not in own or own[id_][1] != row[label]):
                raise DataError(
                    f"{self.path}: the label of {row[path]!r} was changed by another program, and would be lost: "
                    "correct it on the page instead, or give another --manifest"
                )

    def write(self, given: Collection[str], agreed: Mapping[str, Agreed]) -> None:
        """Write the rows of the images that have a label in place of ours so far. OSError if that fails."""
        with self._hold():
            table = _read_table(self.path) if self.path.exists() else _Table([PATH, LABEL], [])
            if self._has_annotators:
                table.add_column(ANNOTATOR)
            path, label = table.position(PATH), table.position(LABEL)
            table.rows = [row for row in table.rows if self._to_id(row[path]) not in given]
            for name, text, annotators in self._rows(agreed).values():
                row = [""] * len(table.names)
                row[path], row[label] = name, text
                if self._has_annotators:
                    row[table.position(ANNOTATOR)] = annotators
                table.rows.append(row)
            self._replace(_format(table))

    def write_whole(self, names: list[str], rows: list[list[str]]) -> None:
        """Write a table of its own. DataError if there is another file in its place."""
        with self._hold():
            if self.path.exists() and self._digest() not in self._read_record():
                raise DataError(f"{self.path} is there already, and not by this command: give another --manifest")
            self._replace(_format(_Table(names, rows)))

    def format_labels(self, labels: tuple[str, ...]) -> str:
        """Return labels as the manifest has them."""
        return json.dumps(labels, ensure_ascii=False) if self._is_multilabel else escape_surrogates(labels[0])

    def _rows(self, agreed: Mapping[str, Agreed]) -> dict[str, tuple[str, str, str]]:
        return {
            id_: (escape_surrogates(id_), self.format_labels(one.labels), "+".join(one.annotators))
            for id_, one in agreed.items()
        }

    def _to_id(self, name: str) -> str:
        return self._images.id_of(self.path.parent / unescape_surrogates(name.strip()))

    def _replace(self, text: str) -> None:
        before = [self._digest()] if self.path.exists() else []
        record = {"digests": [*before, _hash(text.encode())]}  # of both, as a kill may come between the two files
        write_atomically(self._folder / _RECORD, json.dumps(record))
        write_atomically(self.path, text)

    def _digest(self) -> str:
        return _hash(self.path.read_bytes())

    def _read_record(self) -> list[str]:
        try:
            return list(json.loads((self._folder / _RECORD).read_text())["digests"])
        except (OSError, ValueError, KeyError, TypeError):
            return []

    @contextmanager
    def _hold(self) -> Iterator[None]:
        with hold_lock(self._folder / _LOCK, "writing the manifest"):
            yield


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _format(table: _Table) -> str:
    stream = io.StringIO()
    # Every value is quoted: the csv module leaves a carriage return bare.
    writer = csv.writer(stream, delimiter=table.delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([table.names, *table.rows])
    return stream.getvalue()


def _read_table(path: Path) -> _Table:
    """Read a table whole. DataError if its first line does not name path and label."""
    with open_text(path) as (file, head):
        dialect = find_dialect(head, (PATH, LABEL), needs_names=True)
        if dialect is None:
            raise DataError(f"{path} has no first line that names the columns path and label: add it")
        lines = csv.reader(
            file, delimiter=dialect.delimiter, quotechar=dialect.quote, skipinitialspace=dialect.skips_blanks
        )
        rows = [values for values in lines if lines.line_num > dialect.skipped_lines and any(values)]
    names = [*dialect.names]
    return _Table(names, [[*row, *[""] * (len(names) - len(row))] for row in rows], dialect.delimiter)
