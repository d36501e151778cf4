"""A folder of class folders, or one with train/, val/ and test/ that contain class folders."""

from collections.abc import Sequence
from pathlib import Path

from classifier.data.readers.source import Source, SourceBuilder, reject_ambiguous_labels
from classifier.data.readers.tree import DiskFolder, Tree
from classifier.data.split_names import SPLIT_ALIASES, UNASSIGNED, VALIDATION
from classifier.errors import DataError, list_few


def read_folder(folder: Path, *, splits: Sequence[str] = tuple(SPLIT_ALIASES)) -> Source:
    """Find all images at any depth below a class folder; hidden files and folders and other files are ignored.

    splits: the split folders to use. DataError if there are no images, a class has none, or class names differ only by
    case or blanks.
    """
    return read_tree(DiskFolder(folder), folder.resolve().name or str(folder), splits=splits)


def read_tree(top: Tree, name: str, *, splits: Sequence[str] = tuple(SPLIT_ALIASES)) -> Source:
    """read_folder for any Tree; the source gets this name."""
    if not top.folders:
        if top.image_files:
            raise DataError(
                f"{top.label} has images but no class folders: put the images of each class into its own folder"
            )
        raise DataError(f"{top.label} is empty: it needs one folder of images per class")
    builder, strays, class_names = SourceBuilder(), [*top.image_files], set()
    for parent, split in _find_split_folders(top, splits) or [(top, UNASSIGNED)]:
        strays += parent.image_files if parent is not top else []
        for class_folder in parent.folders:
            class_names.add(class_folder.name)
            for id_, file in class_folder.walk_image_files():
                builder.add(id_, file, class_folder.name, split)
    if not builder:
        raise DataError(f"{top.label} has no images in its class folders ({list_few(sorted(class_names))}): add some")
    for class_name in sorted(class_names - builder.class_indices.keys()):
        raise DataError(f"{top.label}: the class folder {class_name!r} has no images: add some, or remove it")
    reject_ambiguous_labels(top.label, class_names, what="class folders")
    findings = ()
    if strays:
        some = list_few([id_ for id_, _ in strays])
        findings = (f"{len(strays)} images are in no class folder and were left out: {some}.",)
    return builder.build(name, findings=findings)


def _find_split_folders(top: Tree, words: Sequence[str]) -> list[tuple[Tree, int]]:
    """Return train/, val/ and test/ with their splits; empty if they are classes themselves (of vehicles, say)."""
    splits = {folder.name.lower(): folder for folder in top.folders if folder.name.lower() in SPLIT_ALIASES}
    others = [folder for folder in top.folders if folder.name.lower() not in splits and any(folder.walk_image_files())]
    if "train" not in splits:
        if others or not splits or any(folder.image_files or not folder.folders for folder in splits.values()):
            return []
        raise DataError(f"{top.label} has {list_few(sorted(splits))} but no train: add train/ with class folders")
    if not splits["train"].folders or (splits["train"].image_files and others):
        return []
    if others:
        raise DataError(
            f"{top.label} has train and also {list_few([folder.name for folder in others])}: put the class folders "
            "into train, val or test, or rename train if it is a class"
        )
    chosen = {word: folder for word, folder in splits.items() if word in words}
    for folder in chosen.values():
        if folder.image_files and not folder.folders:
            raise DataError(
                f"{folder.label} has images without class folders, so without labels: sort them into class folders, or "
                "move it away"
            )
    same = sorted(word for word in chosen if SPLIT_ALIASES[word] == VALIDATION)
    if len(same) > 1:
        raise DataError(f"{top.label} has {' and '.join(same)}, which mean the same: keep one")
    return [(folder, SPLIT_ALIASES[word]) for word, folder in chosen.items()]
