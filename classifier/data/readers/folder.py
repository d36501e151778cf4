"""A folder of class folders, or one with train/, val/ and test/ that hold class folders."""

from collections.abc import Sequence
from pathlib import Path

from classifier.data.readers.source import SourceBuilder, Source, reject_ambiguous_labels
from classifier.data.readers.tree import DiskFolder, Tree
from classifier.data.split_names import DRAWN, VALIDATION, WORDS
from classifier.errors import DataError, list_few


def read_folder(folder: Path, *, splits: Sequence[str] = tuple(WORDS)) -> Source:
    """Every picture at any depth below a class folder. Hidden files and folders do not count, nor other files.

    splits: the split folders that are taken. DataError if there are no pictures, a class has none, or class names
    differ only by case or blanks.
    """
    return read_tree(DiskFolder(folder), folder.resolve().name or str(folder), splits=splits)


def read_tree(top: Tree, name: str, *, splits: Sequence[str] = tuple(WORDS)) -> Source:
    """`read` of a folder that lies elsewhere; the source gets this name."""
    if not top.folders:
        if top.image_files:
            raise DataError(f"{top.label} holds pictures but no class folders: put each class's into their own")
        raise DataError(f"{top.label} is empty: it needs a folder of pictures for each class")
    found, strays, class_names = SourceBuilder(), [*top.image_files], set()
    for parent, split in _find_split_folders(top, splits) or [(top, DRAWN)]:
        strays += parent.image_files if parent is not top else []
        for class_folder in parent.folders:
            class_names.add(class_folder.name)
            for id_, file in class_folder.walk_image_files():
                found.add(id_, file, class_folder.name, split)
    if not found:
        raise DataError(f"{top.label} has no pictures in its class folders ({list_few(sorted(class_names))}): add some")
    for class_name in sorted(class_names - found.class_indices.keys()):
        raise DataError(f"{top.label}: the class folder {class_name!r} holds no pictures: add some, or remove it")
    reject_ambiguous_labels(top.label, class_names, what="class folders")
    findings = ()
    if strays:
        some = list_few([id_ for id_, _ in strays])
        findings = (f"{len(strays)} pictures lie in no class folder and were left out: {some}.",)
    return found.build(name, findings=findings)


def _find_split_folders(top: Tree, words: Sequence[str]) -> list[tuple[Tree, int]]:
    """train/, val/ and test/ with their splits, or nothing where they are classes (of vehicles, say) themselves."""
    splits = {folder.name.lower(): folder for folder in top.folders if folder.name.lower() in WORDS}
    others = [folder for folder in top.folders if folder.name.lower() not in splits and any(folder.walk_image_files())]
    if "train" not in splits:
        if others or not splits or any(folder.image_files or not folder.folders for folder in splits.values()):
            return []
        raise DataError(f"{top.label} holds {list_few(sorted(splits))} but no train: add the class folders to train on")
    if not splits["train"].folders or (splits["train"].image_files and others):
        return []
    if others:
        raise DataError(
            f"{top.label} holds train and also {list_few([folder.name for folder in others])}: put the class folders into "
            "train, val or test, or rename train if it is a class"
        )
    chosen = {word: folder for word, folder in splits.items() if word in words}
    for folder in chosen.values():
        if folder.image_files and not folder.folders:
            raise DataError(
                f"{folder.label} holds pictures without class folders, so without labels: sort them into such, or "
                "move it away"
            )
    same = sorted(word for word in chosen if WORDS[word] == VALIDATION)
    if len(same) > 1:
        raise DataError(f"{top.label} holds {' and '.join(same)}, which mean the same: keep one")
    return [(folder, WORDS[word]) for word, folder in chosen.items()]
