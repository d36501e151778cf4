"""The images that words name, without labels: files, folders, patterns, archives, tables, lists, remote storage.

Each is listed when it is its turn, so that a million images need no more memory than a part of them.
"""

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.readers.detect import expand_pattern
from classifier.data.readers.file_bytes import File
from classifier.data.readers.tree import DiskFolder, ListedFolder, Tree, is_hidden, is_image
from classifier.errors import DataError, list_few

if TYPE_CHECKING:
    from classifier.data.readers.remote import RemotePath

STDIN = "-"
ARCHIVES, TABLES = (".tar", ".zip"), (".parquet", ".pq")
LISTS = (".csv", ".tsv", ".txt", ".lst", ".jsonl", ".ndjson")
_COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")
_CONTAINERS = (*ARCHIVES, *TABLES)
"""Looked for in folders, too, if these have no images."""


class ListedImage(NamedTuple):
    """An image, by the name that its answer has."""

    id: str
    file: File | None
    """None where a row of a table has no image."""
    container: str = ""
    """State of the archive or table that it is in: another one, when that has changed."""
    row: Mapping[str, Any] | None = None
    """Values of the columns beside it, by name."""


class Part(NamedTuple):
    """Neighbouring images, whose answers are written together."""

    number: int
    images: list[ListedImage]
    fingerprint: str
    """Of the names of the images, their order and the state of their files."""


@dataclass
class _Input:
    """What one word names. count: its images, as far as that is known."""

    images: Iterable[ListedImage]
    count: int | None = None
    bytes: int = 0
    """Size of the archive that has them."""
    has_offsets: bool = False
    """The position of a file is in bytes, as in a tar."""


class ImageListing:
    """The images that these words name, in their order. Can be iterated once.

    notes: what was left out; complete when the images were listed. read_stdin: yields the paths on standard input, for
    the word `-`. outside: lists may name images outside their folders. columns: of the model, which tables may have.
    DataError at once for what does not exist; ImportError where pyarrow is missing, for all but image files, folders
    and patterns.
    """

    def __init__(
        self,
        words: Sequence[str],
        read_stdin: Callable[[], Iterable[Path]] = tuple,
        *,
        outside: bool = False,
        columns: Sequence[str] = (),
    ) -> None:
        if words.count(STDIN) > 1:
            raise DataError("standard input can be read only once: give - once")
        self.notes: list[str] = []
        self.listed = 0
        self._read_stdin, self._outside, self._columns = read_stdin, outside, columns
        self._found_columns: set[str] = set()
        self._inputs = [one for word in words for one in self._open(word)]
        self._packed_images = self._packed_bytes = 0
        """Images of archives so far, and the bytes in which they were."""
        if missing := [name for name in columns if name not in self._found_columns]:
            fix = "a table gives them (.csv, .jsonl, .parquet), in columns of these names beside path"
            self.notes.append(f"columns of the model are missing ({list_few(missing, 5)}): {fix}")

    def __iter__(self) -> Iterator[ListedImage]:
        for one in self._inputs:
            packed = self._packed_images, self._packed_bytes
            began = self.listed
            for image in one.images:
                self.listed += 1
                if one.has_offsets:
                    position = getattr(image.file, "position", 0)
                    self._packed_images, self._packed_bytes = packed[0] + self.listed - began, packed[1] + position
                yield image
            one.count = self.listed - began
            self._packed_images, self._packed_bytes = packed[0] + one.count * bool(one.bytes), packed[1] + one.bytes

    def estimate_total(self) -> int | None:
        """Return how many images there are, of archives by the number per byte so far; None if that is unknown."""
        total, per_byte = 0.0, self._packed_images / self._packed_bytes if self._packed_bytes > 1 << 20 else 0.0
        for one in self._inputs:
            if one.count is not None:
                total += one.count
            elif one.bytes and per_byte:
                total += one.bytes * per_byte
            else:
                return None
        return max(self.listed, round(total))

    def _open(self, word: str) -> Iterator[_Input]:
        if word == STDIN:
            yield _Input(ListedImage(str(path), path) for path in self._read_stdin())
        elif "://" in word:
            yield from self._open_remote(word)
        elif os.path.exists(word):
            yield from self._open_path(Path(word))
        elif matches := expand_pattern(word) if glob.has_magic(word) or "{" in word else []:
            for path in matches:
                yield from self._open_path(path)
        else:
            where = "" if os.path.isabs(word) else f" in {os.getcwd()}"
            raise DataError(f"{word} does not exist{where}: give image files or folders of them")

    def _open_path(self, path: Path) -> Iterator[_Input]:
        if path.is_dir():
            yield from self._open_tree(DiskFolder(path), str(path), path)
        elif path.name.lower().endswith((*_CONTAINERS, *LISTS, *_COMPRESSED)):
            yield from self._open_file(path, str(path))
        else:
            yield _Input([ListedImage(str(path), path)], 1)

    def _open_tree(self, top: Tree, name: str, path: "Path | RemotePath") -> Iterator[_Input]:
        """Open a folder: its images or, if it has none, its archives and tables."""
        packed = [] if top.has_images else [*_list_packed(top)]
        if not packed and not top.has_images:
            endings = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{name} contains no images ({endings}){top.describe_others()}: give another folder")
        for id_, file in packed:
            yield from self._open_file(file, f"{name.rstrip('/')}/{id_}")
        if not packed:
            self.notes += [f"{name}: {text}" for text in top.describe_left_out()]
            prefix = name.rstrip("/") + "/" if isinstance(path, Path) and name != "/" else f"{name.rstrip('/')}/"
            named = (
                ListedImage(str(file) if isinstance(file, Path) else prefix + id_, file)
                for id_, file in top.walk_sorted_images()
            )
            yield _Input(named, top.count_images())

    def _open_remote(self, uri: str) -> Iterator[_Input]:
        from classifier.data.readers.remote import RemotePath

        path, name = RemotePath.from_uri(uri), uri.partition("?")[0]
        if not path.is_file():
            files = path.list_files()
            names = ((file.relative_to(path).as_posix(), file) for file in files)
            yield from self._open_tree(ListedFolder(name, names), name, path)
        elif path.suffix.lower() in (*_CONTAINERS, *LISTS):
            yield from self._open_file(path, name)
        else:
            yield _Input([ListedImage(name, path)], 1)

    def _open_file(self, path: "Path | RemotePath", name: str) -> Iterator[_Input]:
        """Open an archive, a table or a list."""
        from classifier.data.readers import archive
        from classifier.data.readers.manifests import unlabelled

        archive.reject_compressed(path)
        suffix = path.suffix.lower()
        if suffix in ARCHIVES:
            yield _Input(self._list_archive(path, name), None, _state(path)[0] or 0, has_offsets=suffix == ".tar")
            return
        if suffix in TABLES:
            from classifier.data.readers.parquet import (
                MIN_CACHED_ROW_GROUPS,
                ImageTable,
                RowGroupCache,
                TableCell,
                read_columns,
            )

            table = ImageTable(path, RowGroupCache(MIN_CACHED_ROW_GROUPS))
            if table.column is not None:
                state, count = str(_state(path)), table.file.starts[-1]
                have = [one for one in self._columns if one in table.schema.names]
                self._found_columns.update(have)
                values = read_columns(path, table.file, {one: one for one in have}) if have else repeat(None, count)
                cells = (
                    ListedImage(f"{name}/{n}", TableCell(table, n), state, row)
                    for n, row in zip(range(count), values, strict=True)
                )
                yield _Input(cells, count)
                return
        self._found_columns.update(unlabelled.list_columns(path, self._columns))
        rows = unlabelled.list_rows(path, columns=self._columns, outside=self._outside)
        listed = (ListedImage(one.name, one.file, row=one.columns) for one in rows)
        yield _Input(listed, _count_lines(path) if suffix in LISTS else None)

    def _list_archive(self, path: "Path | RemotePath", name: str) -> Iterator[ListedImage]:
        from classifier.data.readers import archive

        left_out: list[str] = []
        is_zip, state = path.suffix.lower() == ".zip", str(_state(path))
        for member in (archive.list_zip_members if is_zip else archive.list_tar_members)(path, left_out):
            if is_image(member.name) and not is_hidden(member.name):
                yield ListedImage(f"{name}/{member.name}", member, state)
        if left_out:
            self.notes.append(f"{name}: links and devices were left out, {len(left_out):,}: {list_few(left_out)}.")


def _list_packed(top: Tree) -> Iterator[tuple[str, Any]]:
    """Yield the archives and tables in a folder, on disk or in storage."""
    files = (file for folder in top.walk() for file in folder.other_files)
    return (file for file in files if file[0].lower().endswith(_CONTAINERS))


def _count_lines(path: "Path | RemotePath") -> int:
    from classifier.data.readers.remote import open_random_access

    try:
        with open_random_access(path) as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) or 1
    except OSError:
        return 0  # says why when it is read


def cut_into_parts(images: Iterable[ListedImage], size: int) -> Iterator[Part]:
    """Cut the images into parts of `size`, and the rest."""
    batch: list[ListedImage] = []
    number = 0
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield Part(number, batch, _compute_fingerprint(batch))
            number, batch = number + 1, []
    if batch:
        yield Part(number, batch, _compute_fingerprint(batch))


def _compute_fingerprint(images: Sequence[ListedImage]) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    container = ""
    for id_, file, inside, row in images:
        if inside != container:
            hasher.update(f"{inside}\n".encode())
            container = inside
        state = _state(file) if isinstance(file, Path) else file.pack()[2:] if file else None
        columns = "" if row is None else f" {row!a}"
        hasher.update(f"{id_!a} {state}{columns}\n".encode("ascii", "backslashreplace"))
    return hasher.hexdigest()


def _state(path: "Path | RemotePath") -> tuple[int | None, int | None]:
    """Return the size and the time of the last change of a file, as far as they are known."""
    if not isinstance(path, Path):
        if path.mtime_ns is None:
            info = path.system.get_file_info(str(path.path))
            return info.size, info.mtime_ns
        return path.size, path.mtime_ns
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None, None
    return about.st_size, about.st_mtime_ns
