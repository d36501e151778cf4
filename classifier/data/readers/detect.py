"""Detect what data.path is, and open it with the right reader."""

import dataclasses
import glob
import importlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.config.fields import suggest
from classifier.config.sections import DataConfig
from classifier.data.columns.request import ColumnRequest
from classifier.data.labels.nested import clean_path, describe_tree, find_faults, suggest_nested
from classifier.data.readers import folder, idx
from classifier.data.readers.groups import assign_groups
from classifier.data.readers.source import Source, UntrainableError, to_label_sets
from classifier.data.readers.tree import DiskFolder, ListedFolder, Tree, is_hidden
from classifier.errors import DataError, list_few

if TYPE_CHECKING:
    from classifier.data.readers.remote import RemotePath

# Name -> a function from DataConfig to Source.
DATASETS = {
    "digits": "classifier.data.named.digits:load_digits",
    "mnist": "classifier.data.named.mnist:load_mnist",
    "fashion_mnist": "classifier.data.named.mnist:load_fashion_mnist",
    "kmnist": "classifier.data.named.mnist:load_kmnist",
    "cifar10": "classifier.data.named.cifar:load_cifar10",
    "cifar100": "classifier.data.named.cifar:load_cifar100",
    "svhn": "classifier.data.named.svhn:load_svhn",
    "flowers102": "classifier.data.named.flowers102:load_flowers102",
    "oxford_iiit_pet": "classifier.data.named.oxford_pets:load_oxford_pets",
    "food101": "classifier.data.named.food101:load_food101",
    "imagenet": "classifier.data.named.imagenet:load_imagenet",
}

MAX_SHARD_DEPTH = 2
"""Levels of folders in which shards and tables are looked for."""


def check_exists(path: str) -> None:
    """DataError if a path on this machine does not exist, and is neither a pattern of files nor a known name."""
    is_found = "://" in path or os.path.lexists(full := os.path.expanduser(path)) or expand_pattern(full)
    if path.strip() and not is_found and not is_known_name(path):
        raise DataError(_describe_missing(path))


def open_source(config: DataConfig) -> Source:
    """Open the data set at config.path without decoding images. DataError if there is nothing to learn from."""
    source = _open_unfiltered(config)
    if config.columns and not source.columns:
        raise DataError(
            f"{source.name} has no columns beside its images and labels: give a manifest, a Parquet table or shards "
            "with JSON that have, or leave out data.columns"
        )
    if config.group and source.groups is None:
        source = assign_groups(source, config.group)
    if config.only is not None:
        from classifier.data.readers.id_list import select_listed

        source = select_listed(source, Path(os.path.expanduser(config.only)), config.task)
    return to_label_sets(source) if config.task == "multilabel" else _name_paths(source, config.task)


def _name_paths(source: Source, task: str) -> Source:
    """Check the names of nested classes, or say that they look like such. DataError if they make no tree."""
    if task != "nested":
        findings = suggest_nested(source.class_names) if task == "auto" and source.label_sets is None else []
        return dataclasses.replace(source, findings=(*source.findings, *findings)) if findings else source
    if source.label_sets is not None:
        raise DataError(
            f"{source.name} has images of several labels, which data.task nested cannot take: keep the deepest of each"
        )
    names = tuple(map(clean_path, source.class_names))
    findings = (*source.findings, describe_tree(names))
    source = dataclasses.replace(source, class_names=names, findings=findings)
    if faults := [*find_faults(source.name, names)]:
        raise UntrainableError.of_source(source, faults)
    return source


def _open_unfiltered(config: DataConfig) -> Source:
    if "://" in config.path:
        return _open_remote(config)
    if not config.path.strip():  # as an unset variable in a shell leaves it; Path would take it for this folder
        raise DataError("data.path is empty: give a folder, a manifest or the name of a data set")
    path = Path(os.path.expanduser(config.path))
    if not os.path.lexists(path):  # unlike Path.exists, no error for impossible file names
        files = expand_pattern(str(path))
        return _open_files(files, config) if files else _open_named(config)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        leads = f" is a link to {os.readlink(path)}, which" if path.is_symlink() else ""
        raise DataError(f"{path}{leads} cannot be read ({error.strerror or error}): correct the path") from None
    hides = is_known_name(config.path)
    note = f"{config.path} was read from {path.resolve()}, which comes before the known data set of that name"
    try:
        source = _open_folder(path, config) if is_folder else _open_file(path, config)
    except DataError as error:
        if not hides or type(error) is not DataError:
            raise
        raise DataError(f"{error} ({note})") from None
    return dataclasses.replace(source, findings=(*source.findings, f"{note}.")) if hides else source


def _open_folder(path: Path, config: DataConfig) -> Source:
    if idx.contains_idx(path):
        return idx.read_idx(path)
    return _open_tree(DiskFolder(path), path.resolve().name or str(path), config)


def _open_file(path: "Path | RemotePath", config: DataConfig) -> Source:
    # Imported here and below: readers of archives and tables import Arrow, which the built-in digits do not need.
    from classifier.data.readers import archive
    from classifier.data.readers.manifests import manifest

    if isinstance(path, Path) and not path.is_file():
        raise DataError(f"{path} is a pipe or device, not a file: give a folder, archive, table, manifest or list")
    archive.reject_compressed(path)
    if (source := _open_shards([path], config)) is not None:
        return source
    if path.suffix.lower() in archive.SUFFIXES:
        return archive.read_archive(path, is_nested=config.task == "nested")
    request = ColumnRequest.parse(config.columns)
    return manifest.read_manifest(path, group=config.group, outside=config.outside, task=config.task, request=request)


def _open_remote(config: DataConfig) -> Source:
    """Open a data set in remote storage such as S3; all formats except IDX files and patterns."""
    from classifier.data.readers.remote import RemotePath

    path = RemotePath.from_uri(config.path)
    if path.is_file():
        return _open_file(path, config)
    files = path.list_files()
    if not files:
        raise DataError(f"{config.path} is empty: give a folder, archive, table or manifest in that storage")
    names = ((file.relative_to(path).as_posix(), file) for file in files)
    return _open_tree(ListedFolder(str(path), names), path.name, config)


def _open_tree(top: Tree, name: str, config: DataConfig) -> Source:
    """Open the shards or tables in a folder, at the first level that has some, or else its class folders."""
    for suffix in (".tar", ".parquet"):
        by_level: dict[int, list[Any]] = {}
        for inner in top.walk(MAX_SHARD_DEPTH):
            shards = [file for id_, file in inner.other_files if id_.lower().endswith(suffix)]
            by_level.setdefault(inner.prefix.count("/"), []).extend(shards)
        for level, shards in sorted(by_level.items()):
            if shards and (source := _open_shards(shards, config)) is not None:
                findings = [*source.findings]
                if others := sum(map(len, by_level.values())) - len(shards):
                    findings.append(f"{others:,} {suffix} files that are not {level} levels deep were left out.")
                if beside := [id_ for id_, _ in top.walk_image_files()]:
                    findings.append(
                        f"{len(beside):,} images beside its {suffix} files were left out: {list_few(beside)}."
                    )
                return dataclasses.replace(source, findings=tuple(findings))
    return folder.read_tree(top, name, is_nested=config.task == "nested")


def _open_files(paths: list[Path], config: DataConfig) -> Source:
    """Open the shards or tables that a pattern matches."""
    if (source := _open_shards(paths, config)) is None:
        raise DataError(
            f"{config.path} matches {len(paths)} files, which are no tar shards or tables of images "
            f"({list_few([path.name for path in paths])}): give a folder, or a pattern of such files"
        )
    return source


def _open_shards(paths: list[Any], config: DataConfig) -> Source | None:
    """Open shards of samples, or tables of images; None if the files, all local or all remote, are neither."""
    from classifier.data.readers import archive, parquet, webdataset

    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".tar"} and webdataset.contains_samples(archive.list_tar_members(paths[0])):
        return webdataset.read_webdataset(paths, config.task, ColumnRequest.parse(config.columns))
    if suffixes == {".parquet"} and parquet.ImageTable(paths[0], parquet.RowGroupCache()).column is not None:
        return parquet.read_parquet(paths, config.group, config.task, ColumnRequest.parse(config.columns))
    return None


def expand_pattern(pattern: str) -> list[Path]:
    """Expand a pattern to the files it matches: `*`, `?` and `{000..099}` mean the same as in a shell.

    DataError if some of the numbered files are missing.
    """
    spans = re.match(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if spans is None:
        fixed = os.path.dirname(re.split(r"[*?[]", pattern, maxsplit=1)[0]) or "."
        return [Path(path) for path in sorted(glob.glob(pattern)) if not is_hidden(os.path.relpath(path, fixed))]
    before, first, last, after = spans.groups()
    numbers = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    found = {number: expand_pattern(f"{before}{number}{after}") for number in numbers}
    missing = [number for number, files in found.items() if not files]
    if 0 < len(missing) < len(numbers):
        raise DataError(f"{pattern}: {len(missing)} of its {len(numbers)} files are missing, the first {missing[0]}")
    return [file for files in found.values() for file in files]


def _open_named(config: DataConfig) -> Source:
    location = _find_loader(config.path)
    if location is None:
        raise DataError(_describe_missing(config.path))
    module, _, attribute = location.partition(":")
    return getattr(importlib.import_module(module), attribute)(config)


def is_known_name(path: str) -> bool:
    """Return whether a path that does not exist is the name of a known data set."""
    return _find_loader(path) is not None


def _find_loader(path: str) -> str | None:
    """Return the reader of the known data set with this name; a path, even a single ./word, is no name."""
    if not re.fullmatch(r"[\w-]+", path):
        return None
    return {_normalize(name): location for name, location in DATASETS.items()}.get(_normalize(path))


def _describe_missing(path: str) -> str:
    """Say how far a path exists, and what may have been meant by it."""
    shown = Path(os.path.expanduser(path))
    where = "" if shown.is_absolute() else f" in {os.getcwd()}"
    existing = next((str(folder) for folder in shown.parents if os.path.isdir(folder)), "")
    if not os.path.isdir(shown.parent) and existing not in ("", ".", "/"):
        where += f" (only {existing} does)"
    try:
        beside = [str(shown.parent / name) for name in os.listdir(shown.parent)]
    except (OSError, ValueError):
        beside = []
    hint = suggest(path, [*DATASETS, *beside]) or f": give a folder, a manifest or {', '.join(DATASETS)}"
    return f"{path} does not exist{where}, and no known data set has that name{hint}"


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
