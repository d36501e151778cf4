"""A folder of class folders; or of train, val and test with class folders inside, or of classes with splits inside."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from classifier.data.readers.source import Source, SourceBuilder
from classifier.data.readers.tree import DiskFolder, Tree
from classifier.data.split_names import SPLITS, TRAIN, UNASSIGNED, USUAL_NAMES, SplitName, parse_split_names
from classifier.errors import DataError, list_few

_LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".lst", ".parquet")


def read_folder(folder: Path, *, splits: Collection[int] = range(len(SPLITS))) -> Source:
    """Find all images at any depth below a class folder; hidden files and folders and other files are left out.

    splits: the split folders to use. DataError if there are no images, a class has none, or class names differ only by
    case.
    """
    return read_tree(DiskFolder(folder), folder.resolve().name or str(folder), splits=splits)


def read_tree(top: Tree, name: str, *, splits: Collection[int] = range(len(SPLITS)), is_nested: bool = False) -> Source:
    """read_folder for any Tree; the source gets this name.

    is_nested: each folder with images of its own is a class, whose name is the path below the outermost class folders.
    """
    if not top.has_images:
        raise _no_images(top)
    outer, home, split_folders = _step_inside(top, splits)
    if home.has_own_images and not any(folder.has_images for folder in home.folders):
        lists = [id_ for id_, _ in home.other_files if id_.lower().endswith(_LIST_SUFFIXES)]
        or_list = f", or give {list_few(lists)} as the path if it lists their labels" if lists else ""
        raise DataError(
            f"{home.label} has images but no class folders: put the images of each class into its own folder{or_list}"
        )
    builder, found = SourceBuilder(), dict[str, Tree]()
    strays = [image for folder in (*outer, home) for image in folder.image_files]
    class_splits = {} if split_folders else _find_class_splits(home)
    for parent, split in split_folders or [(home, UNASSIGNED)]:
        strays += parent.image_files if parent is not home else []
        class_folders = [folder for folder in parent.folders if folder.has_images or not folder.holds_runs_only]
        found = {folder.name: folder for folder in class_folders if not (is_nested and folder.has_images)} | found
        for class_folder in class_folders:
            for folder in class_folder.walk():
                inside = folder.prefix.removeprefix(class_folder.prefix).rstrip("/")
                word, _, rest = inside.partition("/")
                if is_nested:
                    inside = rest if word in class_splits else inside
                    label = f"{class_folder.name}/{inside}".rstrip("/")
                    is_bare = folder.has_images and not folder.has_own_images
                    found |= {f"{label}/{one.name}": one for one in folder.folders if is_bare and not one.has_images}
                else:
                    label = class_folder.name
                for id_, file in folder.image_files:
                    builder.add(id_, file, label, class_splits.get(word, split))
    empty = [
        f"{home.label}: the class folder {name!r} has no images{found[name].describe_others()}: add some, or remove it"
        for name in sorted(found.keys() - builder.class_indices.keys())
    ]
    findings = [*_describe_layout(top, home, split_folders, class_splits, is_nested), *top.describe_left_out()]
    if strays:
        some = list_few([id_ for id_, _ in strays])
        findings.append(f"{len(strays)} images are in no class folder and were left out: {some}.")
    return builder.build(
        name,
        where=top.label,
        trusted=builder.class_indices,
        what="class folders",
        findings=tuple(findings),
        refusals=empty,
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


def _step_inside(top: Tree, splits: Collection[int]) -> tuple[list[Tree], Tree, list[tuple[Tree, int]]]:
    """Return the outer folders, the one with the class folders or split folders in them, and its split folders."""
    outer: list[Tree] = []
    while True:
        if split_folders := _find_split_folders(top, splits):
            return outer, top, split_folders
        inner = [folder for folder in top.folders if not folder.holds_runs_only]
        if len(inner) != 1 or not inner[0].has_images:
            return outer, top, []
        has_strays = top.has_own_images or inner[0].has_own_images
        if has_strays and len(_class_folders(inner[0])) < 2:  # then it may be a class
            return outer, top, []
        outer.append(top)
        top = inner[0]


def _describe_layout(
    top: Tree, home: Tree, split_folders: Sequence[tuple[Tree, int]], class_splits: Mapping[str, int], is_nested: bool
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
    class_folders = _class_folders(split_folders[0][0] if split_folders else home)
    with_inner = [folder for folder in class_folders if _class_folders(folder)]
    inner = [_names(folder) for folder in with_inner if not folder.has_own_images]
    if is_nested or class_splits or len(inner) < max(2, len(with_inner)) or min(map(len, inner)) < 2:
        pass
    elif not split_folders and len(inner) == len(class_folders) and all(names == inner[0] for names in inner):
        findings.append(
            f"its classes are the folders {_list(class_folders)}, each of which holds {list_few(sorted(inner[0]))}: if "
            "these are the classes, call the outer folders train, val and test, or give one of them as the path"
        )
    else:
        findings.append(
            f"its class folders hold folders of images ({with_inner[0].name}: {list_few(sorted(inner[0]))}): add "
            "--data.task nested if these are classes in classes"
        )
    return [f"{finding}." for finding in findings]


def _find_split_folders(top: Tree, wanted: Collection[int] = range(len(SPLITS))) -> list[tuple[Tree, int]]:
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
    inside = [(_step_inside_split(folder, split, chosen.values()), split) for split, folder in chosen.items()]
    for folder, split in inside:
        _refuse_unlabelled(folder, split, [other for other, _ in inside if other is not folder])
    return inside


def _find_class_splits(top: Tree) -> dict[str, int]:
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


def _step_inside_split(folder: Tree, split: int, all_splits: Collection[Tree]) -> Tree:
    """Return the folder with the classes of a split: train/train/ and train/images/ have them one level deeper.

    So it is where the name says so, where all splits have one folder, or where another split has the same classes.
    """
    inner = _class_folders(folder)
    if folder.has_own_images or len(inner) != 1 or not _has_class_folders_only(inner[0]):
        return folder
    [name] = parse_split_names([inner[0].name])
    is_doubled = name is not None and name.split == split
    is_shared = any(_names(inner[0]) & _names(other) for other in all_splits)
    if is_doubled or is_shared or all(len(_class_folders(other)) == 1 for other in all_splits):
        return _step_inside_split(inner[0], split, [inner[0]])
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
