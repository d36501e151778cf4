"""The folder of one run, and the files in it.

OUT/NAME/ holds experiment.yaml, history.jsonl (one line per epoch), run.log, checkpoints/, bundle/ and, once the run
has ended, result.json. One process owns the folder at a time, by a lock that the system releases when the process ends.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock, Timeout

from classifier.bundle.test_reads import count_test_reads
from classifier.config.documents import check, parse_json, read_bytes, read_json
from classifier.config.experiment import Experiment
from classifier.config.files import FORMAT_VERSION, dump_experiment
from classifier.errors import ConfigError, RunError, in_short
from classifier.runs.names import numbered_names
from classifier.runs.schema import HistoryRow, Result, SearchResult, check_studies_agree
from classifier.storage.atomic import retry_io, write_atomically
from classifier.storage.file_lock import is_locked, open_lock, read_owner
from classifier.text import quote
from classifier.version import versions

if TYPE_CHECKING:
    from classifier.storage.bucket import Storage

# In a search's folder: the experiment as requested, before settings were resolved.
REQUESTED_EXPERIMENT = "asked.yaml"
# In a search's folder: cache directory for backbone features.
FEATURES = "features"
# Scores of a run without a model of its own, a cross-validation.
SCORES = "scores.json"
ROBUSTNESS = "robustness.json"
PREDICTIONS = {"test": "predictions.parquet", "validation": "validation.parquet"}
HARD_EXAMPLES = {"test": "mistakes.parquet", "validation": "validation-mistakes.parquet"}
LOCK, LOCK_SECONDS = ".lock", 0.2  # longer than `is_in_use` takes to look
# The result that a run had before it was resumed.
EARLIER_RESULT = "result.earlier.json"
# What is made from a result, and wrong without it.
PAGES = ("report.html", "model_card.md", "search.html", "curves.png", "confusion.png")
REMEDY = "restore the file, or train again"
# Keys of every result.json, null where they do not apply.
RESULT_KEYS = ("config", "dataset", "validation", "test", "images_per_second", "input_wait", "epochs")
RESULT_KEYS += ("parameters", "device")
# Kinds of runs that have a model, whose tests are counted.
TESTED_KINDS = ("train", "tune", "compress", "update")


class _NameTakenError(RunError):
    """A run of this name exists already."""


@dataclass
class RunFolder:
    """A run folder that this process owns: get it by `create` or `resume`, and `close` it."""

    folder: Path
    storage: "Storage | None" = None
    """Where the folder is mirrored to, if anywhere."""
    feature_folder: Path | None = None
    """Cache directory for backbone features, shared by trainings on the same images, if any."""
    started: float = field(default_factory=time.monotonic)
    _lock: FileLock | None = None
    _created_out: bool = False

    @staticmethod
    def check_new(out: str | Path, name: str | None) -> Path:
        """Return the folder of a new run, without creating it. name: None if it will be named after its data.

        RunError if the name is invalid or exists already, or OUT cannot be created.
        """
        if name is None:  # whichever is free when the folder is created
            return RunFolder._check_out(Path(out) / "run")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise RunError(
                f"--name {name!r}: use letters, digits, '.', '_' and '-' only, starting with a letter or digit"
            )
        folder = Path(out) / name
        if os.path.exists(folder):  # False, not an error, where OUT may not be searched
            raise _NameTakenError(
                f"{folder} already exists: choose another --name, or continue it with --resume {quote(folder)}"
            )
        return RunFolder._check_out(folder)

    @staticmethod
    def _check_out(folder: Path) -> Path:
        """Check that the folder can be created. Not even OUT is: in a folder of class folders it would be a class."""
        existing = next(path for path in folder.parents if os.path.lexists(path))
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            reason = os.strerror(errno.EACCES if existing.is_dir() else errno.ENOTDIR)
            raise RunError(f"{folder} cannot be created ({reason}): choose another --out")
        return folder

    @classmethod
    def create(cls, out: str | Path, name: str) -> "RunFolder":
        """Create a new, empty run folder. RunError if it already exists or cannot be created."""
        folder = cls.check_new(out, name)
        is_first = not folder.parent.exists()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:  # another process created it just now
            raise _NameTakenError(f"{folder} was just created by another process: choose another --name") from None
        except OSError as error:
            raise RunError(f"{folder} cannot be created ({error.strerror}): choose another --name or --out") from None
        return cls(folder, _created_out=is_first)._acquire_lock()

    @classmethod
    def create_numbered(cls, out: str | Path, path: str, *, reserved: Collection[str] = ()) -> "RunFolder":
        """Create a run folder named after the data set at `path`, with the next free number: OUT/photos-3.

        Processes that do this at the same time get different numbers. reserved: names that are not free, though not in
        OUT. RunError if the folder cannot be created.
        """
        for name in numbered_names(out, path, reserved):
            with contextlib.suppress(_NameTakenError):
                return cls.create(out, name)
        raise AssertionError  # there are always more numbers

    @classmethod
    def resume(cls, folder: str | Path) -> "RunFolder":
        """Open an earlier run to resume it. RunError if it is not a run folder, or if another process owns it."""
        folder = Path(folder)
        if not (folder / "experiment.yaml").is_file():
            raise RunError(f"{folder} is not a run folder (it has no experiment.yaml): give OUT/NAME of an earlier run")
        return cls(folder)._acquire_lock()

    def _acquire_lock(self) -> "RunFolder":
        lock = open_lock(self.folder / LOCK)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            owner = read_owner(self.folder / LOCK)
            raise RunError(f"{self.folder} is in use by {owner}: wait for it or stop it first") from None
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be locked ({error.strerror or error}): make it writable, or copy it elsewhere"
            ) from None
        self._lock = lock
        return self

    def close(self) -> None:
        """Release the folder."""
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Remove a run that never started training, so that a user's mistake leaves no folder behind."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._created_out:
            with contextlib.suppress(OSError):  # another run is there already
                self.folder.parent.rmdir()

    @property
    def has_started(self) -> bool:
        """Whether any training has started in the folder."""
        return any((self.folder / name).exists() for name in ("history.jsonl", "checkpoints", "trials"))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def seconds(self) -> float:
        """Seconds since this process opened the run."""
        return time.monotonic() - self.started

    def write_experiment(self, experiment: Experiment) -> None:
        write_atomically(self.folder / "experiment.yaml", dump_experiment(experiment))

    def write_requested_experiment(self, experiment: Experiment) -> None:
        """Write a search's experiment as requested: trials change it before its open settings are resolved."""
        write_atomically(self.folder / REQUESTED_EXPERIMENT, dump_experiment(experiment))

    def append_history(self, row: dict[str, Any]) -> None:
        """Append a line to history.jsonl. RunError if it cannot be written."""
        path, line = self.folder / "history.jsonl", json.dumps(row, allow_nan=False) + "\n"
        length = path.stat().st_size if path.exists() else 0

        def write() -> None:
            with path.open("a", encoding="utf-8") as file:
                file.truncate(length)  # drops a partial line left by a full disk
                file.write(line)

        retry_io(write, path)

    def history(self) -> list[dict[str, Any]]:
        """Read the rows of history.jsonl."""
        return read_history(self.folder)

    def truncate_history(self, manifest: Mapping[str, Any] | None) -> None:
        """Drop the rows after a checkpoint, and a part of one: the resumed run writes them again."""
        path, all_rows = self.folder / "history.jsonl", self.history()
        rows = completed_rows(all_rows, manifest)
        is_cut_short = path.exists() and not path.read_bytes().endswith(b"\n")
        if len(rows) < len(all_rows) or is_cut_short:
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))

    def set_result_aside(self) -> None:
        """Rename the result of a run that is resumed, and remove its pages: it has none until it ends again."""
        if (self.folder / "result.json").exists():
            (self.folder / "result.json").replace(self.folder / EARLIER_RESULT)
        for name in PAGES:
            (self.folder / name).unlink(missing_ok=True)

    def earlier_result(self) -> dict[str, Any]:
        """Return the result that the run had before it was resumed; empty if it had none."""
        try:
            return json.loads((self.folder / EARLIER_RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def write_result(self, kind: str, status: str, **parts: Any) -> dict[str, Any]:
        """Write result.json, the interface for scripts, and return it. jobs/README.md lists its keys.

        RunError if it cannot be written within three minutes.
        """
        result, path = self._make_result(kind, status, parts), self.folder / "result.json"
        retry_io(lambda: write_atomically(path, _to_json(result)), path)
        return result

    def write_failure(self, kind: str, status: str, **parts: Any) -> None:
        """Write the result of a run that ends by an error, perhaps by a full disk: OSError at once if it cannot be."""
        write_atomically(self.folder / "result.json", _to_json(self._make_result(kind, status, parts)))

    def _make_result(self, kind: str, status: str, parts: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {"format_version": FORMAT_VERSION, "kind": kind, "status": status}
        result |= {"seconds": round(self.seconds, 3), **dict.fromkeys(RESULT_KEYS), **parts}
        if kind in TESTED_KINDS:
            result["test_reads"] = count_test_reads(self.folder)
        return result | {"versions": versions()}


def is_in_use(folder: Path) -> bool:
    """Does a process own this run folder now: is its training or search running? False for any other folder."""
    return is_locked(Path(folder) / LOCK)


def completed_rows(rows: list[dict[str, Any]], manifest: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the rows of the epochs completed at a checkpoint; the row of a partial epoch is written again later."""
    if manifest is None:
        return []
    return [row for row in rows if row["step"] <= manifest["step"] and row["epoch"] <= manifest["about"]["epoch"]]


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a run folder's history.jsonl, without a line that a crash cut short."""
    path = Path(folder) / "history.jsonl"
    rows = []
    for number, line in enumerate(read_bytes(path, REMEDY).splitlines() if path.exists() else [], start=1):
        if line.endswith(b"}"):  # else it was cut short
            rows.append(parse_json(line, f"{path}, line {number},", HistoryRow, REMEDY))
    return rows


def read_result(folder: Path) -> dict[str, Any]:
    """Read a run folder's result.json. RunError if it is missing, corrupted or of an unknown format."""
    path = Path(folder) / "result.json"
    if not path.exists():
        raise RunError(
            f"{folder} has no result.json: the run has not finished; continue it with --resume {quote(folder)}"
        )
    result: dict[str, Any] = read_json(path, dict[str, Any], REMEDY, FORMAT_VERSION)
    try:
        result = check("", SearchResult if {"trials", "winner"} & result.keys() else Result, result)
        check_studies_agree(cast("Result", result))
    except ConfigError as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 200)}): {REMEDY}") from None
    return result


def update_result(folder: Path, **parts: Any) -> None:
    """Change fields of a run folder's result.json. RunError as in `read_result`, or if it cannot be written."""
    path, text = Path(folder) / "result.json", _to_json(read_result(folder) | parts)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): fix that, then do it again") from None


def _to_json(result: dict[str, Any]) -> str:
    return json.dumps(result, indent=2, allow_nan=False) + "\n"
