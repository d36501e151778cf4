"""A folder of class folders; or of train, val and test with class folders inside, or of classes with splits inside."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.readers.tree import DiskFolder, Tree, describe_endings
from classifier.data.split_folders import find_class_splits, find_split_folders
from classifier.data.split_names import SPLITS, UNASSIGNED, USUAL_NAMES
from classifier.errors import DataError, list_few

_LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".lst", ".parquet")


def read_folder(folder: Path, *, splits: Collection[int] = range(len(SPLITS))) -> Source:
    """Find all images at any depth below a class folder; hidden files and folders and other files are left out.

    splits: the split folders to use. DataError if there are no images, a class has none, or class names differ only by
    case.
    """
    return read_tree(DiskFolder(folder), folder.resolve().name or str(folder), splits=splits)


def read_tree(top: Tree, name: str, *, splits: Collection[int] = range(len(SPLITS))) -> Source:
    """read_folder for any Tree; the source gets this name."""
    if not top.has_images:
        raise _no_images(top)
    home, split_folders = _step_inside(top, splits)
    if home.has_own_images and not any(folder.has_images for folder in home.folders):
        lists = [id_ for id_, _ in home.other_files if id_.lower().endswith(_LIST_SUFFIXES)]
        or_list = f", or give {list_few(lists)} as the path if it lists their labels" if lists else ""
        raise DataError(
            f"{home.label} has images but no class folders: put the images of each class into its own folder{or_list}"
        )
    builder, strays, found = SourceBuilder(), [*home.image_files], dict[str, Tree]()
    class_splits = {} if split_folders else find_class_splits(home)
    for parent, split in split_folders or [(home, UNASSIGNED)]:
        strays += parent.image_files if parent is not home else []
        class_folders = [folder for folder in parent.folders if folder.has_images or not folder.holds_runs_only]
        found = {folder.name: folder for folder in class_folders} | found
        for class_folder in class_folders:
            for folder in class_folder.walk():
                word = folder.prefix.removeprefix(class_folder.prefix).partition("/")[0]
                for id_, file in folder.image_files:
                    builder.add(id_, file, class_folder.name, class_splits.get(word, split))
    for class_name in sorted(found.keys() - builder.class_indices.keys()):
        others = found[class_name].describe_others()
        raise DataError(f"{home.label}: the class folder {class_name!r} has no images{others}: add some, or remove it")
    findings = [*_describe_layout(top, home, split_folders, class_splits), *_describe_left_out(top)]
    if strays:
        some = list_few([id_ for id_, _ in strays])
        findings.append(f"{len(strays)} images are in no class folder and were left out: {some}.")
    return builder.build(
        name, where=top.label, trusted=builder.class_indices, what="class folders", findings=tuple(findings)
    )


def _no_images(top: Tree) -> DataError:
    needs = "it needs one folder of images per class"
    others = top.describe_others()
    if top.folders:
        return DataError(
            f"{top.label} has no images in its class folders ({list_few([folder.name for folder in top.folders])})"
            f"{others}: add some"
        )
    return DataError(f"{top.label} has no images{others}: {needs}" if others else f"{top.label} is empty: {needs}")


def _step_inside(top: Tree, splits: Collection[int]) -> tuple[Tree, list[tuple[Tree, int]]]:
    """Return the folder with the class folders or split folders, inside any outer ones, and its split folders."""
    while True:
        if split_folders := find_split_folders(top, splits):
            return top, split_folders
        inner = [folder for folder in top.folders if not folder.holds_runs_only]
        if len(inner) != 1 or top.has_own_images or inner[0].has_own_images or not inner[0].has_images:
            return top, []
        top = inner[0]


def _describe_layout(
    top: Tree, home: Tree, split_folders: Sequence[tuple[Tree, int]], class_splits: Mapping[str, int]
) -> list[str]:
    """Say how folders were read, where their layout is not the usual one."""
    findings = []
    if home is not top and not split_folders:
        findings.append(f"its classes are the folders in {home.prefix}")
    unusual = [
        f"{folder.prefix} is its {SPLITS[split]} split"
        for folder, split in split_folders
        if folder.prefix.removeprefix(home.prefix).rstrip("/").lower() not in USUAL_NAMES
    ]
    unusual += [f"{name}/ in its class folders is its {SPLITS[split]} split" for name, split in class_splits.items()]
    findings += [", ".join(unusual)] if unusual else []
    return [f"{finding}." for finding in findings]


def _describe_left_out(top: Tree) -> list[str]:
    findings = []
    if counts := top.count_left_out():
        total = "1 file was" if counts.total() == 1 else f"{counts.total():,} files were"
        findings.append(f"{total} left out, being no images by their endings: {describe_endings(counts)}.")
    if runs := [run.prefix for folder in top.walk() for run in folder.run_folders]:
        findings.append(f"runs of this program were left out: {list_few(runs)}.")
    return findings
