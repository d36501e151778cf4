"""Where the data of a run are, and have been: its settings may name a path relative to the folder it was started in."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TypedDict

from classifier.config.documents import read_json
from classifier.config.sections import DataConfig
from classifier.data.assigned_splits import FILE as ASSIGNED_FILE
from classifier.data.dataset import Dataset
from classifier.data.readers.detect import expand_pattern, is_known_name
from classifier.errors import DataError, RunError
from classifier.storage.atomic import write_atomically
from classifier.storage.uri import is_remote
from classifier.text import escape_surrogates, unescape_surrogates

DATA_FILE = "data.json"
MAX_PATHS = 10


class _Location(TypedDict):
    started_in: str
    paths: list[str]
    """Absolute paths of the data, the latest first."""
    fingerprint: str


def write_location(folder: Path, config: DataConfig, fingerprint: str) -> None:
    """Write the current folder, where the data are and have been, and their fingerprint into a run folder."""
    earlier = _read(folder)
    paths = [*(earlier["paths"] if earlier else [])]
    if not is_remote(config.path) and _exists(config.path):
        paths = [escape_surrogates(os.path.abspath(os.path.expanduser(config.path))), *paths]
    location: _Location = {
        "started_in": escape_surrogates(os.getcwd()),
        "paths": list(dict.fromkeys(paths))[:MAX_PATHS],
        "fingerprint": fingerprint,
    }
    write_atomically(folder / DATA_FILE, json.dumps(location) + "\n")


def find_data(
    config: DataConfig, folder: Path, fix: str = "give their new path by --data", *, is_new_path: bool = False
) -> DataConfig:
    """Return the settings with their paths found: from here, from where the run was started, or where the data were.

    folder: the run's. fix: what to do about missing data. is_new_path: the user has just given the path, which is only
    looked for from here. DataError says where they were looked for.
    """
    location = _read(folder)
    started_in = Path(unescape_surrogates(location["started_in"])) if location else None
    found = {}
    if config.split_from is not None and (folder / ASSIGNED_FILE).is_file():
        found["split_from"] = str(folder)  # it has them all, wherever the earlier run is now
    for name in ("path", "unlabelled", "root", "only", "split_from"):
        value = getattr(config, name)
        if name in found or value is None or is_remote(value) or _exists(value):
            continue
        candidates = [] if started_in is None else [started_in / os.path.expanduser(value)]
        if name == "path":
            candidates += map(unescape_surrogates, location["paths"] if location else ())
            candidates = [] if is_new_path else candidates
        # An update has images of its own, wherever its folder is now.
        own = [folder / Path(value).name] if name == "path" and not is_new_path else []
        if existing := next(filter(_exists, [*candidates, *own]), None):
            found[name] = str(existing)
        elif name == "path" and not is_known_name(value):
            nor = f", nor in {started_in}, where the run was started" if candidates and started_in != Path.cwd() else ""
            where = "" if os.path.isabs(value) else f" in {os.getcwd()}{nor}"
            raise DataError(f"{value} does not exist{where}: {fix}")
    return dataclasses.replace(config, **found)


def check_same_data(folder: Path, dataset: Dataset) -> None:
    """Raise a RunError if a run was started on other images, labels or splits than these."""
    location = _read(folder)
    if location and location["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"{folder} was started on other images, labels or splits than {dataset.name} has now: restore the data, or "
            "start a new run"
        )


def _read(folder: Path) -> _Location | None:
    """Return what `write_location` wrote; None in a run of an earlier version."""
    path = folder / DATA_FILE
    return read_json(path, _Location, "remove it, and give the path of the data") if path.exists() else None


def _exists(path: str | Path) -> bool:
    path = os.path.expanduser(path)
    return os.path.exists(path) or (bool(set("*?[{") & set(str(path))) and bool(expand_pattern(str(path))))
