"""Folder trees of images, on disk or listed in an archive, with one interface for both."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from classifier.data.decoding.decode import SUFFIXES
from classifier.errors import DataError

# Left behind by file servers and archivers.
_IGNORED_NAMES = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"})

SETTLE_SECONDS = 2.0
"""A file changed more recently than this may change again with the same modification time."""

_FolderKey = tuple[int, int]
"""A folder's device and inode: the same through any link."""


PackedFile = tuple[object, Callable[[str, int, int], "File"], str, int, int]
"""A key for the container, a function that recreates the file from a name and two numbers, and those three."""


class VirtualFile(Protocol):
    """An image file inside another file, or in remote storage."""

    def read_bytes(self) -> bytes:
        """Read the whole file. OSError if it cannot be read."""
        ...

    def identity(self) -> bytes | None:
        """Return 16 bytes that change with the file and its location; None if its state is unknown."""
        ...

    def pack(self) -> PackedFile:
        """Return everything needed to recreate it, in a few values."""
        ...


File = Path | VirtualFile
"""An image file, wherever it is stored."""


ImageFile = tuple[str, File]
"""Name relative to the top of the tree, with slashes, and the file."""


class Tree(Protocol):
    """A folder. Hidden files and folders are ignored, and so are files that are not images."""

    name: str
    label: str
    """Its name in messages."""

    @property
    def folders(self) -> "list[Tree]":
        """Its direct subfolders, sorted by name."""
        ...

    @property
    def image_files(self) -> list[ImageFile]:
        """The images directly in it, sorted by name."""
        ...

    def walk_image_files(self) -> Iterator[ImageFile]:
        """Yield the images in it at any depth."""
        ...


class DiskFolder:
    """A local folder. Links are followed, each folder once, and never in cycles."""

    def __init__(self, path: Path, top: Path | None = None) -> None:
        self.path, self.top = path, top or path
        self.name, self.label = path.name, str(path)
        self._content: tuple[list[Path], list[Path]] | None = None

    @property
    def folders(self) -> list[Tree]:
        return [DiskFolder(path, self.top) for path in self._scan_once()[0]]

    @property
    def image_files(self) -> list[ImageFile]:
        return [self._image_file(path) for path in self._scan_once()[1]]

    def walk_image_files(self) -> Iterator[ImageFile]:
        visited = (_with_ancestors(self.top) | _with_ancestors(self.path)) - {_folder_key(self.path)}
        pending = [self.path]
        while pending:
            folder = pending.pop()
            if _folder_key(folder) not in visited:
                visited.add(_folder_key(folder))
                folders, images = _scan(folder, visited)
                yield from map(self._image_file, images)
                pending += reversed(folders)

    def _scan_once(self) -> tuple[list[Path], list[Path]]:
        if self._content is None:
            self._content = _scan(self.path, _with_ancestors(self.path))
        return self._content

    def _image_file(self, path: Path) -> ImageFile:
        return path.relative_to(self.top).as_posix(), path


class ListedFolder:
    """A folder known only by the names of its files."""

    def __init__(self, label: str, files: Iterable[ImageFile] = (), name: str = "") -> None:
        """files: their names have slashes, and none leads out of the folder."""
        self.name, self.label = name, label
        self._folders: dict[str, ListedFolder] = {}
        self._files: list[ImageFile] = []
        for file in files:
            self._add(file, file[0].split("/"))

    def _add(self, file: ImageFile, parts: list[str]) -> None:
        folder = self
        for part in parts[:-1]:
            if is_hidden(part):
                return
            if part not in folder._folders:
                folder._folders[part] = ListedFolder(f"{folder.label}/{part}", name=part)
            folder = folder._folders[part]
        if not is_hidden(parts[-1]) and os.path.splitext(parts[-1])[1].lower() in SUFFIXES:
            folder._files.append(file)

    @property
    def folders(self) -> list[Tree]:
        return [self._folders[name] for name in sorted(self._folders)]

    @property
    def image_files(self) -> list[ImageFile]:
        return sorted(self._files, key=lambda file: file[0])

    def walk_image_files(self) -> Iterator[ImageFile]:
        yield from self.image_files
        for folder in self.folders:
            yield from folder.walk_image_files()


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is ignored."""
    return name.startswith(".") or name in _IGNORED_NAMES


def _scan(folder: Path, visited: set[_FolderKey]) -> tuple[list[Path], list[Path]]:
    """Return its visible folders, except those in `visited` (links back up), and its images; both sorted by name."""
    try:
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
            folders = [Path(entry.path) for entry in visible if _is_folder(entry)]
            others = [Path(entry.path) for entry in visible if not _is_folder(entry)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror or error}): make it readable") from None
    return (
        [path for path in folders if _folder_key(path) not in visited],
        [path for path in others if path.suffix.lower() in SUFFIXES],
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _with_ancestors(folder: Path) -> set[_FolderKey]:
    """Return the folder and all its ancestors: following a link to one of them would be a cycle."""
    real = folder.resolve()
    return {_folder_key(path) for path in (real, *real.parents)}


def _folder_key(folder: Path) -> _FolderKey:
    status = folder.stat()
    return status.st_dev, status.st_ino


def file_identity(path: Path) -> bytes | None:
    """Return 16 bytes that identify a file and its state: path, size, time of change, inode.

    None if it has just changed, or does not exist."""
    try:
        about = path.stat()
    except OSError:
        return None
    if time.time() - max(about.st_mtime, about.st_ctime) < SETTLE_SECONDS:
        return None
    return _hash(os.path.abspath(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


def derive_identity(container: bytes | None, *position: object) -> bytes | None:
    """Return the identity of an image inside a file with the identity `container`."""
    return None if container is None else _hash(container.hex(), *position)


def _hash(*values: object) -> bytes:
    return hashlib.blake2b(repr(values).encode(), digest_size=16).digest()
