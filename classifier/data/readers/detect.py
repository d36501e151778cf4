"""What lies at data.path: which reader takes it."""

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

# Name -> a function of DataConfig that gives a Source.
DATASETS = {
    "digits": "classifier.data.named.digits:read",
    "mnist": "classifier.data.named.mnist:mnist",
    "fashion_mnist": "classifier.data.named.mnist:fashion_mnist",
    "kmnist": "classifier.data.named.mnist:kmnist",
    "cifar10": "classifier.data.named.cifar:cifar10",
    "cifar100": "classifier.data.named.cifar:cifar100",
    "svhn": "classifier.data.named.svhn:read",
    "flowers102": "classifier.data.named.flowers102:read",
    "oxford_iiit_pet": "classifier.data.named.oxford_pets:read",
    "food101": "classifier.data.named.food101:read",
    "imagenet": "classifier.data.named.imagenet:read",
}


def open_source(config: DataConfig) -> Source:
    """What lies at config.path, before anything is decoded. DataError if there is nothing to learn from."""
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
    if os.path.exists(path):  # unlike Path.exists, no error on what no file can be called
        return _open_folder(path, config) if path.is_dir() else _open_file(path, config)
    files = expand_pattern(str(path))
    return (_open_shards(files, config) if files else None) or _open_named(config)


def _open_folder(path: Path, config: DataConfig) -> Source:
    if idx.contains_idx(path):
        return idx.read_idx(path)
    # Shards and tables lie in the folder, or in one for each split.
    for pattern in ("*.tar", "*/*.tar", "*.parquet", "*/*.parquet", "*/*/*.parquet"):
        if (files := sorted(path.glob(pattern))) and (found := _open_shards(files, config)) is not None:
            return found
    return folder.read_folder(path)


def _open_file(path: Path, config: DataConfig) -> Source:
    # Here and below: what reads archives and tables imports Arrow, which the embedded digits do without.
    from classifier.data.readers import archive, manifest

    archive.reject_compressed(path)
    if (found := _open_shards([path], config)) is not None:
        return found
    if path.suffix.lower() in archive.SUFFIXES:
        return archive.read_archive(path)
    return manifest.read_manifest(path, group=config.group, outside=config.outside)


def _open_remote(config: DataConfig) -> Source:
    """What lies in S3 and the like: the same, but for IDX files and patterns."""
    from classifier.data.readers import archive, manifest
    from classifier.data.readers.remote import RemotePath
    from classifier.data.readers.tree import ListedFolder

    place = RemotePath.from_uri(config.path)
    if place.is_file():
        archive.reject_compressed(place)
        if (found := _open_shards([place], config)) is not None:
            return found
        if place.suffix.lower() in archive.SUFFIXES:
            return archive.read_archive(place)
        return manifest.read_manifest(place, group=config.group)
    files = place.list_files()
    if not files:
        raise DataError(f"{config.path} holds nothing: give a folder, archive, table or manifest in that storage")
    for ending in (".tar", ".parquet"):
        chosen = [file for file in files if file.suffix.lower() == ending]
        if chosen and (found := _open_shards(chosen, config)) is not None:
            return found
    names = ((file.relative_to(place).as_posix(), file) for file in files)
    return folder.read_tree(ListedFolder(str(place), names), place.name)


def _open_shards(paths: "list[Path] | list[RemotePath]", config: DataConfig) -> Source | None:
    """Shards of samples, or tables of pictures; None if these are no such files."""
    from classifier.data.readers import archive, parquet, webdataset

    endings = {path.suffix.lower() for path in paths}
    if endings == {".tar"} and webdataset.contains_samples(archive.list_tar_members(paths[0])):
        return webdataset.read_webdataset(paths)
    if endings == {".parquet"} and parquet.ImageTable(paths[0], parquet.RowGroupCache()).column is not None:
        return parquet.read_parquet(paths, config.group)
    return None


def expand_pattern(pattern: str) -> list[Path]:
    """The files of a pattern: `*`, `?` and `{000..099}` stand for what they do in a shell. DataError if some of those
    that it counts are missing."""
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
    names = {_normalize(name): home for name, home in DATASETS.items()}
    home = names.get(_normalize(config.path))
    if home is None:
        parent = Path(config.path).parent
        beside = [str(parent / name) for name in os.listdir(parent)] if os.access(parent, os.R_OK) else []
        mend = suggest(config.path, [*DATASETS, *beside]) or f": give a folder, a manifest or {', '.join(DATASETS)}"
        raise DataError(f"{config.path} does not exist, and no known data set has that name{mend}")
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)(config)


def _normalize(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
