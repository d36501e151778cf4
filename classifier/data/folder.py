"""A folder of class folders, or one with train/, val/ and test/ that hold class folders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.data.decode import SUFFIXES
from classifier.data.source import DRAWN, Source, few, from_files, refuse_lookalikes
from classifier.data.split import TEST, TRAIN, VALIDATION
from classifier.errors import DataError

SPLIT_FOLDERS = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
# What file servers and archivers leave behind.
_LITTER = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"})

_Identity = tuple[int, int]
"""A folder's device and inode: the same whatever link leads to it."""


def read(folder: Path, *, splits: Sequence[str] = tuple(SPLIT_FOLDERS)) -> Source:
    """Every picture at any depth below a class folder. Hidden files and folders do not count, nor other files.

    splits: the split folders that are taken. DataError if there are no pictures, a class has none, or class names
    differ only by case or blanks.
    """
    top = _Content.of(folder, _and_above(folder))
    if not top.folders:
        if top.pictures:
            raise DataError(f"{folder} holds pictures but no class folders: put each class's into their own")
        raise DataError(f"{folder} is empty: it needs a folder of pictures for each class")
    parents = _split_folders(folder, top, splits) or {folder: DRAWN}
    rows, strays, class_names = [], list(top.pictures), set()
    for parent, split in parents.items():
        content = top if parent == folder else _Content.of(parent, _and_above(parent))
        strays += content.pictures if parent != folder else []
        for class_folder in content.folders:
            class_names.add(class_folder.name)
            for path in _below(class_folder, _and_above(folder)):
                rows.append((path.relative_to(folder).as_posix(), path, class_folder.name, split))
    if not rows:
        raise DataError(f"{folder} has no pictures in its class folders ({few(sorted(class_names))}): add some")
    for class_name in sorted(class_names - {row[2] for row in rows}):
        raise DataError(f"{folder}: the class folder {class_name!r} holds no pictures: add some, or remove it")
    refuse_lookalikes(str(folder), class_names, what="class folders")
    findings = ()
    if strays:
        some = few([path.relative_to(folder).as_posix() for path in strays])
        findings = (f"{len(strays)} pictures lie in no class folder and were left out: {some}.",)
    return from_files(folder.resolve().name or str(folder), rows, findings=findings)


def _split_folders(folder: Path, top: "_Content", words: Sequence[str]) -> dict[Path, int]:
    """train/, val/ and test/ with their splits, or nothing where they are classes (of vehicles, say) themselves."""
    splits = {path.name.lower(): path for path in top.folders if path.name.lower() in SPLIT_FOLDERS}
    inside = {word: _Content.of(path, _and_above(path)) for word, path in splits.items()}
    others = [path for path in top.folders if path.name.lower() not in splits and any(_below(path, _and_above(path)))]
    if "train" not in splits:
        if others or not splits or any(content.pictures or not content.folders for content in inside.values()):
            return {}
        raise DataError(f"{folder} holds {few(sorted(splits))} but no train: add the class folders to train on")
    if not inside["train"].folders or (inside["train"].pictures and others):
        return {}
    if others:
        raise DataError(
            f"{folder} holds train and also {few([path.name for path in others])}: put the class folders into train, "
            "val or test, or rename train if it is a class"
        )
    chosen = {word: path for word, path in splits.items() if word in words}
    for word, path in chosen.items():
        if inside[word].pictures and not inside[word].folders:
            raise DataError(
                f"{path} holds pictures without class folders, so without labels: sort them into such, or move it away"
            )
    same = sorted(word for word in chosen if SPLIT_FOLDERS[word] == VALIDATION)
    if len(same) > 1:
        raise DataError(f"{folder} holds {' and '.join(same)}, which mean the same: keep one")
    return {path: SPLIT_FOLDERS[word] for word, path in chosen.items()}


@dataclass(frozen=True)
class _Content:
    """The visible folders and pictures directly in a folder, by name."""

    folders: tuple[Path, ...]
    pictures: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path, seen: set[_Identity]) -> "_Content":
        """Without folders in `seen`: links back to where one came from."""
        try:
            with os.scandir(folder) as entries:
                visible = sorted(
                    (entry for entry in entries if not entry.name.startswith(".") and entry.name not in _LITTER),
                    key=lambda entry: entry.name,
                )
                folders = [Path(entry.path) for entry in visible if _is_folder(entry)]
                others = [Path(entry.path) for entry in visible if not _is_folder(entry)]
        except OSError as error:
            raise DataError(f"{folder} cannot be read ({error.strerror or error}): make it readable") from None
        return cls(
            tuple(path for path in folders if _identity(path) not in seen),
            tuple(path for path in others if path.suffix.lower() in SUFFIXES),
        )


def _below(folder: Path, seen: set[_Identity]) -> Iterator[Path]:
    """The pictures at any depth. A folder that several links lead to is visited once."""
    seen = (seen | _and_above(folder)) - {_identity(folder)}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if _identity(here) not in seen:
            seen.add(_identity(here))
            content = _Content.of(here, seen)
            yield from content.pictures
            waiting += reversed(content.folders)


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
