"""The one walk over images in folders, on disk or listed in an archive: training, audit and prediction share it.

Left out are hidden files, what file managers and servers leave behind, folders of this program's own runs, and pipes
and devices. Files without the ending of an image are listed apart, so that a reader can say what it did not use.

Links in a folder on disk are followed wherever they lead, since the folder is the user's own: each folder once, and
never in a cycle. Links in an archive are not. A document that names files, such as a manifest, must not lead out of its
folder, not even through a link: `leads_outside`.
"""

import abc
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from classifier.data.decoding.decode import SUFFIXES
from classifier.data.readers.file_bytes import File
from classifier.errors import DataError, list_few

# In lower case. Names that begin with a dot are hidden, too: .DS_Store, ._photo.jpg, .ipynb_checkpoints.
_LITTER = frozenset(
    (
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "thumbs.db:encryptable", "desktop.ini", "picasa.ini"),
        *("$recycle.bin", "system volume information", "found.000"),  # Windows
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@__thumb"),  # file servers
        *("lost+found", "__pycache__"),
    )
)

RUN_FILES = frozenset(
    (
        *("run.log", "result.json", "experiment.yaml", "asked.yaml", "history.jsonl", ".lock", "checkpoints"),
        *("bundle.json", "model.safetensors"),
    )
)
"""A folder with two of these is one of this program's runs or bundles, and no folder of images."""

MAX_DEPTH = 100
"""Folders below the top one. Deeper ones are a mistake, or made to exhaust what walks them."""

_FolderKey = tuple[int, int]
"""A folder's device and inode: the same through any link."""


ImageFile = tuple[str, File]
"""Name relative to the top of the tree, with slashes, and the file."""


@dataclass
class _Entries:
    """The names in a folder, without hidden ones. others: files that are no images by their endings."""

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    special_files: int = 0
    """Pipes, sockets and devices."""
    broken_links: int = 0
    """Links that lead nowhere, without the ending of an image."""
    run_files: int = 0

    def add_file(self, name: str) -> None:
        (self.images if is_image(name) else self.others).append(name)


class Tree(abc.ABC):
    """A folder. `prefix`: its name relative to the top one with a slash at the end, "" for the top itself."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self.name, self.prefix = name, prefix

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Its name in messages."""

    @abc.abstractmethod
    def _scan(self) -> _Entries: ...

    @abc.abstractmethod
    def _file(self, name: str) -> File: ...

    @abc.abstractmethod
    def _subfolders(self) -> "Iterable[Tree]": ...

    @functools.cached_property
    def _entries(self) -> _Entries:
        return self._scan()

    @functools.cached_property
    def _key(self) -> object:
        """Equal for the same folder, reached by any links."""
        return self._identify()

    def _identify(self) -> object:
        return self.prefix

    @functools.cached_property
    def _visible_folders(self) -> "tuple[list[Tree], list[Tree]]":
        """Its subfolders, and the runs among them."""
        if self._entries.folders and self.prefix.count("/") >= MAX_DEPTH:
            raise DataError(f"{self.label[:100]}... has folders more than {MAX_DEPTH} levels deep: move them away")
        both: tuple[list[Tree], list[Tree]] = [], []
        for folder in self._subfolders():
            both[folder.is_run].append(folder)
        return both

    @property
    def is_run(self) -> bool:
        """Whether it is a run or bundle folder of this program."""
        return self._entries.run_files >= 2

    @property
    def folders(self) -> "list[Tree]":
        """Its direct subfolders, sorted by name, without those of runs."""
        return self._visible_folders[0]

    @property
    def run_folders(self) -> "list[Tree]":
        """Its direct subfolders that are runs."""
        return self._visible_folders[1]

    @property
    def image_files(self) -> list[ImageFile]:
        """The images directly in it, sorted by name."""
        return [(self.prefix + name, self._file(name)) for name in self._entries.images]

    @property
    def other_files(self) -> list[ImageFile]:
        """The files directly in it that do not have the ending of an image, sorted by name."""
        return [(self.prefix + name, self._file(name)) for name in self._entries.others]

    def count_left_out(self) -> Counter[str]:
        """Count the visible files in it, at any depth, that are no images, by their endings."""
        return Counter(_ending(name) for folder in self.walk() for name in folder._entries.others)

    def describe_left_out(self) -> list[str]:
        """Say which visible files and folders in it are left out: up to four sentences."""
        findings = []
        if counts := self.count_left_out():
            findings.append(f"files were left out because of their endings: {describe_endings(counts)}.")
        if special := sum(folder._entries.special_files for folder in self.walk()):
            findings.append(f"pipes and devices were left out, {special:,} in all.")
        if broken := sum(folder._entries.broken_links for folder in self.walk()):
            findings.append(f"links that lead nowhere were left out, {broken:,} in all.")
        if runs := [run.prefix for folder in self.walk() for run in folder.run_folders]:
            findings.append(f"runs of this program were left out: {list_few(runs)}.")
        return findings

    def describe_others(self) -> str:
        """Say what is in a folder without images: `, only 2 .heic (cat/1.heic)`. Empty if there is nothing."""
        counts = self.count_left_out()
        example = next((id_ for folder in self.walk() for id_, _ in folder.other_files), None)
        if counts:
            return f", only {describe_endings(counts)}{f' ({example})' if example else ''}"
        return ", only runs of this program" if self.holds_runs_only else ""

    @functools.cached_property
    def has_images(self) -> bool:
        """Whether there is an image in it, at any depth."""
        return any(folder._entries.images for folder in self.walk())

    @functools.cached_property
    def holds_runs_only(self) -> bool:
        """Whether there are runs of this program in it, and no images."""
        return not self.has_images and any(folder.run_folders for folder in self.walk())

    @property
    def has_own_images(self) -> bool:
        """Whether there is an image directly in it."""
        return bool(self._entries.images)

    def walk(self, depth: int = MAX_DEPTH + 1) -> "Iterator[Tree]":
        """Yield it and the folders in it, down to `depth` levels below it: each folder once, whatever links say."""
        seen: set[object] = set()
        pending: list[tuple[Tree, int]] = [(self, 0)]
        while pending:
            folder, level = pending.pop()
            if folder._key not in seen:
                seen.add(folder._key)
                yield folder
                if level < depth:
                    pending += [(inner, level + 1) for inner in reversed(folder.folders)]

    def walk_image_files(self) -> Iterator[ImageFile]:
        """Yield the images in it at any depth."""
        for folder in self.walk():
            yield from folder.image_files

    def count_images(self) -> int:
        """Count the images in it at any depth."""
        return sum(len(folder._entries.images) for folder in self.walk())

    def walk_sorted_images(self, _seen: "set[object] | None" = None) -> Iterator[ImageFile]:
        """Yield the images in it at any depth, sorted by path, part by part of it."""
        seen: set[object] = set() if _seen is None else _seen
        if self._key in seen:
            return
        seen.add(self._key)
        folders = {folder.name: folder for folder in self.folders}
        images = set(self._entries.images)
        for name in sorted({*images, *folders}):
            if name in images:
                yield self.prefix + name, self._file(name)
            if name in folders:
                yield from folders[name].walk_sorted_images(seen)


class DiskFolder(Tree):
    """A local folder."""

    def __init__(self, path: Path, above: "DiskFolder | None" = None) -> None:
        super().__init__(path.name, f"{above.prefix}{path.name}/" if above else "")
        self.path = path
        self._ancestors: frozenset[object] = above._ancestors | {above._key} if above else frozenset()
        if above is None or os.path.islink(path):  # no error for a path that is too long
            self._ancestors |= set(map(_folder_key, Path(os.path.realpath(path)).parents))

    @property
    def label(self) -> str:
        return str(self.path)

    def _identify(self) -> _FolderKey:
        return _folder_key(self.path)

    def _scan(self) -> _Entries:
        found = _Entries()
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    found.run_files += entry.name in RUN_FILES
                    if is_hidden(entry.name):
                        continue
                    if _holds(entry.is_dir):
                        found.folders.append(entry.name)
                    elif _holds(entry.is_file) or (entry.is_symlink() and is_image(entry.name)):
                        found.add_file(entry.name)  # a broken link may be an image that is unreadable
                    elif entry.is_symlink():
                        found.broken_links += 1
                    else:
                        found.special_files += 1
        except OSError as error:
            raise _unreadable(self.path, error) from None
        for names in (found.folders, found.images, found.others):
            names.sort()
        return found

    def _subfolders(self) -> Iterator["DiskFolder"]:
        for name in self._entries.folders:
            folder = DiskFolder(self.path / name, self)
            if folder._key not in folder._ancestors:  # a link back up
                yield folder

    def _file(self, name: str) -> Path:
        return self.path / name


class ListedFolder(Tree):
    """A folder known only by the names of its files."""

    def __init__(self, label: str, files: Iterable[ImageFile] = (), name: str = "", prefix: str = "") -> None:
        """files: their names have slashes, and none leads out of the folder. Of two with one name the last counts."""
        super().__init__(name, prefix)
        self._top_label = label
        self._folders: dict[str, ListedFolder] = {}
        self._files: dict[str, File] = {}
        self._run_files: set[str] = set()
        for file in files:
            self._add(*file)

    @property
    def label(self) -> str:
        return f"{self._top_label}/{self.prefix}".rstrip("/")

    def _add(self, id_: str, file: File) -> None:
        folder, parts = self, id_.split("/")
        for part in parts[:-1]:
            folder._run_files |= RUN_FILES & {part}
            if is_hidden(part):
                return
            if part not in folder._folders:
                if folder.prefix.count("/") >= MAX_DEPTH:
                    raise DataError(f"{self.label} has folders more than {MAX_DEPTH} levels deep: repack it")
                folder._folders[part] = ListedFolder(self._top_label, (), part, f"{folder.prefix}{part}/")
            folder = folder._folders[part]
        folder._run_files |= RUN_FILES & {parts[-1]}
        if not is_hidden(parts[-1]):
            folder._files[parts[-1]] = file

    def _scan(self) -> _Entries:
        found = _Entries(sorted(self._folders), run_files=len(self._run_files))
        for name in sorted(self._files):
            found.add_file(name)
        return found

    def _subfolders(self) -> "list[ListedFolder]":
        return [self._folders[name] for name in self._entries.folders]

    def _file(self, name: str) -> File:
        return self._files[name]


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name, or of this path with slashes, is left out."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in name.split("/"))


def describe_endings(counts: Counter[str]) -> str:
    """Describe files by their endings, the most frequent first.

    >>> describe_endings(Counter({".heic": 2, "without an ending": 1}))
    '2 .heic, 1 without an ending'
    """
    shown = counts.most_common(5)
    more = counts.total() - sum(count for _, count in shown)
    return ", ".join(f"{count:,} {ending}" for ending, count in [*shown, *([("others", more)] if more else [])])


def _ending(name: str) -> str:
    ending = os.path.splitext(name)[1].lower()
    if not ending:
        return "without an ending"
    return ending if re.fullmatch(r"\.[\w~+-]{1,16}", ending) else "with an odd ending"


def leads_outside(path: Path, folder: Path) -> bool:
    """Return whether the path, with every link in it followed, is outside the folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def is_image(name: str) -> bool:
    """Return whether a file of this name has the ending of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a link to itself
        return False


def _folder_key(folder: Path) -> _FolderKey:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from None
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> DataError:
    name = str(folder)
    shown = name if len(name) < 300 else f"{name[:100]}..."
    return DataError(f"{shown} cannot be read ({error.strerror or error}): make it readable")
