"""Folders of pictures, on a disk or named inside of an archive: the same to who reads classes from them."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from classifier.data.decoding.decode import SUFFIXES
from classifier.errors import DataError

# What file servers and archivers leave behind.
_LITTER = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"})

# A file that changed so few seconds ago may change again without its time showing it.
SETTLED = 2.0

_Identity = tuple[int, int]
"""A folder's device and inode: the same whatever link leads to it."""


Packed = tuple[object, Callable[[str, int, int], "File"], str, int, int]
"""A key for what contains the file; what makes it again of a name and two numbers; and these."""


class Inner(Protocol):
    """A picture's file inside of another, or in storage."""

    def read_bytes(self) -> bytes:
        """All of it. OSError if it cannot be read."""
        ...

    def identity(self) -> bytes | None:
        """16 bytes that change with it and with where it lies; None where nothing is known of that."""
        ...

    def packed(self) -> Packed:
        """All of it in a few values."""
        ...


File = Path | Inner
"""A picture's file, wherever it lies."""


Picture = tuple[str, File]
"""Its name, relative to the tree's top and with slashes, and where it lies."""


class Tree(Protocol):
    """A folder. Hidden files and folders do not count, nor other files than pictures."""

    name: str
    label: str
    """What messages call it."""

    @property
    def folders(self) -> "list[Tree]":
        """Those directly in it, by name."""
        ...

    @property
    def pictures(self) -> list[Picture]:
        """Those directly in it, by name."""
        ...

    def below(self) -> Iterator[Picture]:
        """Those in it at any depth."""
        ...


class Disk:
    """A folder of this machine. Links are followed, each folder once, and never in circles."""

    def __init__(self, path: Path, top: Path | None = None) -> None:
        self.path, self.top = path, top or path
        self.name, self.label = path.name, str(path)
        self._content: tuple[list[Path], list[Path]] | None = None

    @property
    def folders(self) -> list[Tree]:
        return [Disk(path, self.top) for path in self._looked()[0]]

    @property
    def pictures(self) -> list[Picture]:
        return [self._picture(path) for path in self._looked()[1]]

    def below(self) -> Iterator[Picture]:
        seen = (_and_above(self.top) | _and_above(self.path)) - {_identity(self.path)}
        waiting = [self.path]
        while waiting:
            here = waiting.pop()
            if _identity(here) not in seen:
                seen.add(_identity(here))
                folders, pictures = _scan(here, seen)
                yield from map(self._picture, pictures)
                waiting += reversed(folders)

    def _looked(self) -> tuple[list[Path], list[Path]]:
        if self._content is None:
            self._content = _scan(self.path, _and_above(self.path))
        return self._content

    def _picture(self, path: Path) -> Picture:
        return path.relative_to(self.top).as_posix(), path


class Listed:
    """A folder that is known by the names of its files alone."""

    def __init__(self, label: str, pictures: Iterable[Picture] = (), name: str = "") -> None:
        """pictures: names with slashes, none of which leads out of the folder."""
        self.name, self.label = name, label
        self._folders: dict[str, Listed] = {}
        self._pictures: list[Picture] = []
        for picture in pictures:
            self._add(picture, picture[0].split("/"))

    def _add(self, picture: Picture, parts: list[str]) -> None:
        here = self
        for part in parts[:-1]:
            if is_hidden(part):
                return
            if part not in here._folders:
                here._folders[part] = Listed(f"{here.label}/{part}", name=part)
            here = here._folders[part]
        if not is_hidden(parts[-1]) and os.path.splitext(parts[-1])[1].lower() in SUFFIXES:
            here._pictures.append(picture)

    @property
    def folders(self) -> list[Tree]:
        return [self._folders[name] for name in sorted(self._folders)]

    @property
    def pictures(self) -> list[Picture]:
        return sorted(self._pictures, key=lambda picture: picture[0])

    def below(self) -> Iterator[Picture]:
        yield from self.pictures
        for folder in self.folders:
            yield from folder.below()


def is_hidden(name: str) -> bool:
    """Does a file or folder of this name count for nothing?"""
    return name.startswith(".") or name in _LITTER


def _scan(folder: Path, seen: set[_Identity]) -> tuple[list[Path], list[Path]]:
    """Visible folders but for those in `seen` (links back to where one came from), and pictures; both by name."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
            folders = [Path(entry.path) for entry in visible if _is_folder(entry)]
            others = [Path(entry.path) for entry in visible if not _is_folder(entry)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror or error}): make it readable") from None
    return (
        [path for path in folders if _identity(path) not in seen],
        [path for path in others if path.suffix.lower() in SUFFIXES],
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _and_above(folder: Path) -> set[_Identity]:
    """The folder and all above it: a link to one of them would go round in circles."""
    real = folder.resolve()
    return {_identity(path) for path in (real, *real.parents)}


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def identity(path: Path) -> bytes | None:
    """16 bytes for a file and its state: place, size, time of change, inode. None if it just changed, or is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    if time.time() - max(about.st_mtime, about.st_ctime) < SETTLED:
        return None
    return _hashed(os.path.abspath(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


def part_of(container: bytes | None, *where: object) -> bytes | None:
    """The identity of a picture inside of a file with that identity."""
    return None if container is None else _hashed(container.hex(), *where)


def _hashed(*values: object) -> bytes:
    return hashlib.blake2b(repr(values).encode(), digest_size=16).digest()
