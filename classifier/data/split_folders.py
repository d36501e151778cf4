"""Which folders are splits: those named like one, unless what is in them and beside them says that they are classes."""

from collections.abc import Collection, Iterable, Sequence

from classifier.data.readers.tree import Tree
from classifier.data.split_names import SPLITS, TRAIN, SplitName, parse_split_names
from classifier.errors import DataError, list_few


def find_split_folders(top: Tree, wanted: Collection[int] = range(len(SPLITS))) -> list[tuple[Tree, int]]:
    """Return the folders with the class folders of each split; none if the folders are classes (of vehicles, say).

    wanted: the splits to use. DataError names the folders if it is unclear what they are, or a split has no classes.
    """
    folders = [folder for folder in top.folders if folder.has_images]
    named = dict(zip(folders, parse_split_names([folder.name for folder in folders]), strict=True))
    splits = _match(named)
    others = [folder for folder in folders if folder not in splits]
    train = next((folder for folder, split in splits.items() if split == TRAIN), None)
    if train is None:
        if others or not splits or not all(map(_has_class_folders_only, splits)):
            _refuse_shared_classes(top, named)
            return []
        raise DataError(f"{top.label} has {_list(splits)} but no train: add train/ with class folders")
    if others and not _has_class_folders_only(train):
        return []
    if others:
        raise DataError(
            f"{top.label} has {_list(splits)} and also {_list(others)}: put the class folders into train, val or test, "
            "or rename train if it is a class"
        )
    chosen: dict[int, Tree] = {}
    for folder, split in splits.items():
        if split in wanted and (other := chosen.setdefault(split, folder)) is not folder:
            raise DataError(f"{top.label} has {other.name} and {folder.name}, which mean the same: keep one")
    _refuse_empty_splits(top, wanted)
    inside = [(_step_inside(folder, split, chosen.values()), split) for split, folder in chosen.items()]
    for folder, split in inside:
        _refuse_unlabelled(folder, split, [other for other, _ in inside if other is not folder])
    return inside


def find_class_splits(top: Tree) -> dict[str, int]:
    """Return the splits of the folders in class folders, by their names, if all classes are divided so; else none.

    DataError if some hold train and another split, and others do not.
    """
    inner = {folder: _class_folders(folder) for folder in top.folders if folder.has_images}
    names = sorted({folder.name for folders in inner.values() for folder in folders})
    parsed = zip(names, parse_split_names(names), strict=True)
    split_of = {name: found.split for name, found in parsed if found is not None and not found.rest}
    divided = undivided = None
    for folder, folders in inner.items():
        splits = {split_of.get(inside.name) for inside in folders}
        if TRAIN in splits and len(splits - {None}) > 1:
            divided = folder
        if folder.has_own_images or None in splits or not splits:
            undivided = folder
    if divided is None:
        return {}
    if undivided is not None:
        raise DataError(
            f"{divided.label} is divided into {_list(inner[divided])}, but {undivided.name} has images in no split: "
            "divide all classes alike, or none"
        )
    return split_of


def _match(named: dict[Tree, SplitName | None]) -> dict[Tree, int]:
    """Return the folders whose names say nothing but a split, or agree but for it, such as seg_train and seg_test."""
    splits_of: dict[str, set[int]] = {}
    for name in filter(None, named.values()):
        splits_of.setdefault(name.rest, set()).add(name.split)
    return {
        folder: name.split
        for folder, name in named.items()
        if name and (not name.rest or (TRAIN in splits_of[name.rest] and len(splits_of[name.rest]) > 1))
    }


def _step_inside(folder: Tree, split: int, all_splits: Collection[Tree]) -> Tree:
    """Return the folder with the classes of a split: train/train/ and train/images/ have them one level deeper."""
    inner = _class_folders(folder)
    if folder.has_own_images or len(inner) != 1 or not _has_class_folders_only(inner[0]):
        return folder
    [name] = parse_split_names([inner[0].name])
    is_doubled = name is not None and name.split == split
    if is_doubled or all(len(_class_folders(other)) == 1 for other in all_splits):
        return _step_inside(inner[0], split, [inner[0]])
    return folder


def _refuse_unlabelled(folder: Tree, split: int, others: Sequence[Tree]) -> None:
    """Raise a DataError for a split without class folders, or whose only one is called like it, and is in no other."""
    inner = _class_folders(folder)
    [name] = parse_split_names([inner[0].name]) if len(inner) == 1 else [None]
    is_split = name is not None and name.split == split and all(inner[0].name not in _names(other) for other in others)
    if not inner or is_split:
        raise DataError(
            f"{(inner or [folder])[0].label} has images without class folders, so without labels: sort them into class "
            "folders, or move it away"
        )


def _refuse_empty_splits(top: Tree, wanted: Collection[int]) -> None:
    """Raise a DataError for a split's folder with files, none of which is an image."""
    folders = [folder for folder in top.folders if not folder.has_images]
    for folder, name in zip(folders, parse_split_names([folder.name for folder in folders]), strict=True):
        if name and not name.rest and name.split in wanted and (others := folder.describe_others()):
            raise DataError(f"{folder.label} has no images{others}: add some, or move it away")


def _refuse_shared_classes(top: Tree, named: dict[Tree, SplitName | None]) -> None:
    """Raise a DataError for folders that are no splits by their names alone, but hold folders of the same names."""
    for folder, name in named.items():
        if name is None or not _has_class_folders_only(folder):
            continue
        inner = _names(folder)
        for other, other_name in named.items():
            is_suspect = not name.rest or (other_name is not None and other_name.split != name.split)
            is_split = other is not folder and is_suspect and not other.has_own_images
            if is_split and inner & _names(other):
                raise DataError(
                    f"{top.label}: {_list([folder, other])} hold folders of the same names, so they may be splits or "
                    "classes: call splits train, val and test, or rename the class"
                )


def _class_folders(folder: Tree) -> Sequence[Tree]:
    return [inner for inner in folder.folders if inner.has_images]


def _names(folder: Tree) -> set[str]:
    return {inner.name for inner in _class_folders(folder)}


def _has_class_folders_only(folder: Tree) -> bool:
    return bool(_class_folders(folder)) and not folder.has_own_images


def _list(folders: Iterable[Tree]) -> str:
    return list_few([folder.name for folder in folders], 5)
