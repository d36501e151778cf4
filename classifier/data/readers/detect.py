"""Detect what data.path is, and open it with the right reader."""

import glob
import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.config.fields import suggest
from classifier.config.sections import DataConfig
from classifier.data.readers import folder, idx
from classifier.data.readers.groups import assign_groups
from classifier.data.readers.source import Source
from classifier.errors import DataError

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


def open_source(config: DataConfig) -> Source:
    """Open the data set at config.path without decoding images. DataError if there is nothing to learn from."""
    source = _open_unfiltered(config)
    if config.group and source.groups is None:
        source = assign_groups(source, config.group)
    if config.only is None:
        return source
    from classifier.data.readers.id_list import select_listed

    return select_listed(source, Path(os.path.expanduser(config.only)))


def _open_unfiltered(config: DataConfig) -> Source:
    if "://" in config.path:
        return _open_remote(config)
    path = Path(os.path.expanduser(config.path))
    if os.path.exists(path):  # unlike Path.exists, no error for impossible file names
        return _open_folder(path, config) if path.is_dir() else _open_file(path, config)
    files = expand_pattern(str(path))
    return (_open_shards(files, config) if files else None) or _open_named(config)


def _open_folder(path: Path, config: DataConfig) -> Source:
    if idx.contains_idx(path):
        return idx.read_idx(path)
    # Shards and tables are directly in the folder, or in one subfolder per split.
    for pattern in ("*.tar", "*/*.tar", "*.parquet", "*/*.parquet", "*/*/*.parquet"):
        if (files := sorted(path.glob(pattern))) and (source := _open_shards(files, config)) is not None:
            return source
    return folder.read_folder(path)


def _open_file(path: Path, config: DataConfig) -> Source:
    # Imported here and below: readers of archives and tables import Arrow, which the built-in digits do not need.
    from classifier.data.readers import archive, manifest

    archive.reject_compressed(path)
    if (source := _open_shards([path], config)) is not None:
        return source
    if path.suffix.lower() in archive.SUFFIXES:
        return archive.read_archive(path)
    return manifest.read_manifest(path, group=config.group, outside=config.outside)


def _open_remote(config: DataConfig) -> Source:
    """Open a data set in remote storage such as S3; all formats except IDX files and patterns."""
    from classifier.data.readers import archive, manifest
    from classifier.data.readers.remote import RemotePath
    from classifier.data.readers.tree import ListedFolder

    path = RemotePath.from_uri(config.path)
    if path.is_file():
        archive.reject_compressed(path)
        if (source := _open_shards([path], config)) is not None:
            return source
        if path.suffix.lower() in archive.SUFFIXES:
            return archive.read_archive(path)
        return manifest.read_manifest(path, group=config.group)
    files = path.list_files()
    if not files:
        raise DataError(f"{config.path} is empty: give a folder, archive, table or manifest in that storage")
    for suffix in (".tar", ".parquet"):
        shards = [file for file in files if file.suffix.lower() == suffix]
        if shards and (source := _open_shards(shards, config)) is not None:
            return source
    names = ((file.relative_to(path).as_posix(), file) for file in files)
    return folder.read_tree(ListedFolder(str(path), names), path.name)


def _open_shards(paths: "list[Path] | list[RemotePath]", config: DataConfig) -> Source | None:
    """Open shards of samples, or tables of images; None if the files are neither."""
    from classifier.data.readers import archive, parquet, webdataset

    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".tar"} and webdataset.contains_samples(archive.list_tar_members(paths[0])):
        return webdataset.read_webdataset(paths)
    if suffixes == {".parquet"} and parquet.ImageTable(paths[0], parquet.RowGroupCache()).column is not None:
        return parquet.read_parquet(paths, config.group)
    return None


def expand_pattern(pattern: str) -> list[Path]:
    """Expand a pattern to the files it matches: `*`, `?` and `{000..099}` mean the same as in a shell.

    DataError if some of the numbered files are missing.
    """
    spans = re.match(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if spans is None:
        return [Path(path) for path in sorted(glob.glob(pattern))]
    before, first, last, after = spans.groups()
    numbers = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    found = {number: expand_pattern(f"{before}{number}{after}") for number in numbers}
    missing = [number for number, files in found.items() if not files]
    if 0 < len(missing) < len(numbers):
        raise DataError(f"{pattern}: {len(missing)} of its {len(numbers)} files are missing, the first {missing[0]}")
    return [file for files in found.values() for file in files]


def _open_named(config: DataConfig) -> Source:
    loaders = {_normalize(name): loader for name, loader in DATASETS.items()}
    loader = loaders.get(_normalize(config.path))
    if loader is None:
        parent = Path(config.path).parent
        beside = [str(parent / name) for name in os.listdir(parent)] if os.access(parent, os.R_OK) else []
        hint = suggest(config.path, [*DATASETS, *beside]) or f": give a folder, a manifest or {', '.join(DATASETS)}"
        raise DataError(f"{config.path} does not exist, and no known data set has that name{hint}")
    module, _, attribute = loader.partition(":")
    return getattr(importlib.import_module(module), attribute)(config)


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
