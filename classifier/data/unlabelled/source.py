"""What data.unlabelled is, opened as a source whose labels are not used."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.readers import detect, idx
from classifier.data.readers.file_bytes import File
from classifier.data.readers.source import Source
from classifier.data.readers.tree import DiskFolder, is_hidden, is_image
from classifier.errors import DataError

ARCHIVES = (".zip", ".tar")
PACKED = (".tar", ".parquet")
"""Looked for in folders without images."""
LISTS = (".csv", ".tsv", ".txt", ".lst", ".jsonl", ".ndjson")


def open_unlabelled(config: DataConfig) -> Source:
    """Open config.unlabelled without decoding images: a folder of images at any depth, an archive of one, a list or
    manifest with or without labels, or whatever else data.path may be. DataError if it has no images.
    """
    assert config.unlabelled is not None
    try:
        return open_images(config.unlabelled, config)
    except DataError as error:
        raise type(error)(f"data.unlabelled: {error}") from None


def open_images(location: str, config: DataConfig) -> Source:
    """`open_unlabelled`, of any location. config: how it may be read."""
    source = _open(location, config)
    if len(source.ids) == 0:
        raise DataError(f"{location} has no images: give a folder of images")
    return source


def list_images(name: str, ids: Sequence[str], files: Sequence[File]) -> Source:
    """Return a source of files that have no labels."""
    return Source(
        name=name,
        class_names=("",),
        ids=tuple(ids),
        labels_N=np.zeros(len(ids), np.int64),
        splits_N=np.zeros(len(ids), np.int8),
        images=list(files),
    )


def _open(location: str, config: DataConfig) -> Source:
    """Images are looked for before labels, as folders without classes are no data set."""
    path = Path(location).expanduser()
    if path.is_dir() and not idx.contains_idx(path):
        top = DiskFolder(path)
        if files := list(top.walk_sorted_images()):
            return list_images(path.resolve().name, *zip(*files, strict=True))
        others = (name for folder in top.walk() for name, _ in folder.other_files)
        if not any(name.lower().endswith(PACKED) for name in others):
            raise DataError(f"{path} contains no images{top.describe_others()}: give another folder")
    elif path.is_file() and path.suffix.lower() in ARCHIVES:
        from classifier.data.readers import archive, webdataset

        is_zip = path.suffix.lower() == ".zip"
        if is_zip or not webdataset.contains_samples(archive.list_tar_members(path)):
            members = archive.list_zip_members(path) if is_zip else archive.list_tar_members(path)
            named = {one.name: one for one in members if is_image(one.name) and not is_hidden(one.name)}
            return list_images(path.name, sorted(named), [named[name] for name in sorted(named)])
    elif path.is_file() and path.suffix.lower() in LISTS:
        from classifier.data.readers.manifests.unlabelled import list_rows

        rows = [row for row in list_rows(path, outside=config.outside) if row.file is not None]
        return list_images(path.name, [row.name for row in rows], [row.file for row in rows if row.file])
    return detect.open_source(_without_choices(location, config))


def _without_choices(location: str, config: DataConfig) -> DataConfig:
    """The settings by which data.unlabelled is read as a data set: those about labels and splits have no meaning."""
    kept = ("root", "download", "outside", "max_pixels", "max_bytes", "max_seconds")
    return DataConfig(path=location, **{name: getattr(config, name) for name in kept})
