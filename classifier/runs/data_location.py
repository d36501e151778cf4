"""Where the data of a run are: its settings may name a path relative to the folder that it was started in."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TypedDict

from classifier.config.documents import read_json
from classifier.config.sections import DataConfig
from classifier.data.assigned_splits import FILE as ASSIGNED_FILE
from classifier.data.dataset import Dataset
from classifier.data.readers.detect import is_known_name
from classifier.errors import DataError, RunError
from classifier.storage.atomic import write_atomically
from classifier.storage.uri import is_remote
from classifier.text import escape_surrogates, unescape_surrogates

DATA_FILE = "data.json"


class _Location(TypedDict):
    started_in: str
    fingerprint: str


def write_location(folder: Path, dataset: Dataset) -> None:
    """Write the current folder and the data set's fingerprint into a run folder."""
    location: _Location = {"started_in": escape_surrogates(os.getcwd()), "fingerprint": dataset.fingerprint}
    write_atomically(folder / DATA_FILE, json.dumps(location) + "\n")


def find_data(config: DataConfig, folder: Path, fix: str = "give their new path by --data") -> DataConfig:
    """Return the settings with their relative paths found: from here, or else from where the run was started.

    folder: the run's. fix: what to do about missing data. DataError says where they were looked for.
    """
    location = _read(folder)
    started_in = Path(unescape_surrogates(location["started_in"])) if location else None
    found = {}
    if config.split_from is not None and (folder / ASSIGNED_FILE).is_file():
        found["split_from"] = str(folder)  # it has them all, wherever the earlier run is now
    for name in ("path", "root", "only", "split_from"):
        value = getattr(config, name)
        if name in found or value is None or is_remote(value) or _exists(value):
            continue
        if started_in is not None and not os.path.isabs(os.path.expanduser(value)) and _exists(started_in / value):
            found[name] = str(started_in / value)
        elif name == "path" and not is_known_name(value) and not set("*?[{") & set(value):
            nor = f", nor in {started_in}, where the run was started" if started_in not in (None, Path.cwd()) else ""
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
    return os.path.exists(os.path.expanduser(path))
