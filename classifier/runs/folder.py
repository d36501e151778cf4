"""The folder of one run: its owner, its journal, its result.

OUT/NAME/ holds experiment.yaml, history.jsonl (a line an epoch), run.log, checkpoints/, bundle/ and, once the run
ended, result.json. One process owns it at a time; the lock dies with its owner.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from classifier.config.experiment import Experiment
from classifier.config.files import FORMAT_VERSION, dump_experiment
from classifier.errors import RunError
from classifier.storage.atomic import check_format_version, retry_io, write_atomically
from classifier.version import versions

if TYPE_CHECKING:
    from classifier.storage.bucket import Storage

REQUESTED_EXPERIMENT = "asked.yaml"
# Of a search: what frozen backbones see in its images.
FEATURES = "features"
# The scores of a run that has no model of its own: those of a cross-validation.
SCORES = "scores.json"
ROBUSTNESS = "robustness.json"
PREDICTIONS = {"test": "predictions.parquet", "validation": "validation.parquet"}
HARD_EXAMPLES = {"test": "mistakes.parquet", "validation": "validation-mistakes.parquet"}
# Keys of every result.json; null where a verb has nothing to say of them.
RESULT_KEYS = ("config", "dataset", "validation", "test", "images_per_second", "input_wait", "epochs")
RESULT_KEYS += ("parameters", "device")


@dataclass
class Run:
    """A run folder that this process owns. Make one with `create` or `resume`, and `close` it."""

    folder: Path
    storage: "Storage | None" = None
    """Where its copy lies, if it has one."""
    feature_folder: Path | None = None
    """Where what a frozen backbone sees is kept for other trainings of the same images, if it is."""
    started: float = field(default_factory=time.monotonic)
    _lock: IO[str] | None = None

    @staticmethod
    def check_new(out: str | Path, name: str) -> Path:
        """Folder of a new run, not created yet. RunError if the name is invalid or taken, or OUT cannot be created."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise RunError(
                f"--name {name!r}: use letters, digits, '.', '_' and '-' only, starting with a letter or digit"
            )
        folder = Path(out) / name
        if folder.exists():
            raise RunError(f"{folder} already exists: choose another --name, or continue it with --resume {folder}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(folder.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise RunError(f"{folder} cannot be created ({error.strerror}): choose another --out") from None
        return folder

    @classmethod
    def create(cls, out: str | Path, name: str) -> "Run":
        """A new, empty run folder. RunError if it already exists or cannot be created."""
        folder = cls.check_new(out, name)
        try:
            folder.mkdir()
        except OSError as error:  # another process created it just now, or the disk is full
            raise RunError(f"{folder} cannot be created ({error.strerror}): choose another --name or --out") from None
        return cls(folder)._own()

    @classmethod
    def resume(cls, folder: str | Path) -> "Run":
        """An earlier run, to go on with. RunError if it is none, or if another process owns it."""
        folder = Path(folder)
        if not (folder / "experiment.yaml").is_file():
            raise RunError(f"{folder} is no run folder (it has no experiment.yaml): give OUT/NAME of an earlier run")
        return cls(folder)._own()

    def _own(self) -> "Run":
        self._lock = (self.folder / ".lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            raise RunError(f"{self.folder} is in use by process {owner}: wait for it or stop it first") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        return self

    def close(self) -> None:
        """Give the folder up."""
        if self._lock is not None:
            self._lock.close()

    def discard(self) -> None:
        """Remove a run that never began, so that a user's mistake leaves nothing half-written."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def has_started(self) -> bool:
        """Something was trained in it."""
        return any((self.folder / name).exists() for name in ("history.jsonl", "checkpoints", "trials"))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    @property
    def seconds(self) -> float:
        """Since this process took the run."""
        return time.monotonic() - self.started

    def write_experiment(self, experiment: Experiment) -> None:
        write_atomically(self.folder / "experiment.yaml", dump_experiment(experiment))

    def write_requested_experiment(self, experiment: Experiment) -> None:
        """Of a search: the experiment that its trials change, before anything was resolved for one of them."""
        write_atomically(self.folder / REQUESTED_EXPERIMENT, dump_experiment(experiment))

    def append_history(self, row: dict[str, Any]) -> None:
        """Add a line to history.jsonl. RunError if it cannot be written."""
        path, line = self.folder / "history.jsonl", json.dumps(row, allow_nan=False) + "\n"
        length = path.stat().st_size if path.exists() else 0

        def write() -> None:
            with path.open("a", encoding="utf-8") as file:
                file.truncate(length)  # a part of the line, which a full disk left
                file.write(line)

        retry_io(write, path)

    def history(self) -> list[dict[str, Any]]:
        """The lines of history.jsonl."""
        return read_history(self.folder)

    def truncate_history(self, manifest: dict[str, Any] | None) -> None:
        """Forget the lines that a checkpoint does not count in: a resumed run writes them again."""
        before = self.history()
        rows = completed_rows(before, manifest)
        if len(rows) < len(before):
            write_atomically(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def write_result(self, kind: str, status: str, **parts: Any) -> dict[str, Any]:
        """Write result.json, the contract for scripts, and give it back. README.md lists its keys."""
        result: dict[str, Any] = {"format_version": FORMAT_VERSION, "kind": kind, "status": status}
        result |= {"seconds": round(self.seconds, 3), **dict.fromkeys(RESULT_KEYS), **parts, "versions": versions()}
        write_atomically(self.folder / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
        return result


def completed_rows(rows: list[dict[str, Any]], manifest: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The lines of the epochs that were whole at a checkpoint: a part of an epoch is written again, as a whole."""
    if manifest is None:
        return []
    return [row for row in rows if row["step"] <= manifest["step"] and row["epoch"] <= manifest["about"]["epoch"]]


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run folder's history.jsonl; one that a crash cut short is left out."""
    path = Path(folder) / "history.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def read_result(folder: Path) -> dict[str, Any]:
    """result.json of a run folder. RunError if it is missing, damaged or of an unknown format."""
    path = Path(folder) / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RunError(
            f"{folder} has no result.json: the run has not ended; go on with it by --resume {folder}"
        ) from None
    except ValueError:
        raise RunError(f"{path} is damaged: it is not JSON") from None
    check_format_version(result, path, FORMAT_VERSION)
    return result
