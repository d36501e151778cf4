"""Checkpoints on disk: complete or absent.

A checkpoint is a folder `step-00001234/` of files and, written last, `manifest.json` with their checksums and its own.
A reader takes the newest one that is intact and says which it skipped, so a crash loses at most the work since then,
and damage no more than the checkpoints that it hit. Weights are safetensors; everything else is loaded within bounds
and executes no code.
"""

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from classifier.config.documents import Count, check, read_json
from classifier.errors import ConfigError, RunError, in_short, list_few
from classifier.models.weights_file import CLASS_NAMES
from classifier.storage.atomic import file_sha256, fsync, retry_io, write_atomically, write_tensors
from classifier.storage.bucket import step_of
from classifier.storage.torch_file import check_size, load_torch
from classifier.text import show

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
UNCHECKED_VERSION = 1
"""Manifests of this format have no checksum of their own."""
MANIFEST, WEIGHTS, STATE = "manifest.json", "weights.safetensors", "state.pt"


class ListedFile(TypedDict):
    """A file of a checkpoint, as its manifest describes it."""

    sha256: str
    bytes: Count


class About(TypedDict):
    """What a checkpoint belongs to. dataset: the fingerprint of the images and labels."""

    epoch: Count
    dataset: str


class Manifest(TypedDict):
    """manifest.json. A sha256 of the rest is in the file only."""

    step: Count
    about: About
    files: dict[str, ListedFile]


class _Versioned(TypedDict):
    format_version: Any


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: `weights` of the model, `state` of everything else, and metadata `about` it."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    about: dict[str, Any]
    class_names: Sequence[str] = ()
    """Of the head's outputs: in the file of the weights, for a training that starts from them."""

    def copy_to_cpu(self) -> "Checkpoint":
        """Copy all tensors to the CPU, into memory that nothing else writes to."""
        copy: dict[str, Any] = _copy_to_cpu({"weights": self.weights, "state": self.state})
        return Checkpoint(self.step, copy["weights"], copy["state"], self.about, self.class_names)


def _copy_to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {key: _copy_to_cpu(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy_to_cpu(inner) for inner in value)
    return value


@dataclass(frozen=True)
class CheckpointStore:
    """A folder of checkpoints, which keeps the last `keep`."""

    folder: Path
    keep: int = 2

    def commit(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint whose tensors share no memory; return its folder.

        It exists once its manifest does. All but the last `keep` are removed. RunError if it cannot be written.
        """
        folder = self.folder / f"step-{checkpoint.step:08d}"
        retry_io(lambda: _write(checkpoint, folder), folder)
        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def load_latest(self) -> Checkpoint | None:
        """Load the newest intact checkpoint to the CPU, and log which newer ones are damaged; None if there is none.

        Incomplete ones, left by a crash, do not count. RunError if all are damaged, or this one cannot be loaded.
        """
        from safetensors.torch import load_file

        folder, manifest, damaged = self._find_intact()
        if folder is None or manifest is None:
            return None
        if damaged:
            logger.warning("%s: damaged, skipped for %s: %s", self.folder, folder.name, list_few(damaged))
        try:
            weights = load_file(folder / WEIGHTS)
            state = load_torch(folder / STATE)
            check_size(state, folder / STATE)
        except Exception as error:  # intact files that no training wrote may raise anything
            reason = f"{type(error).__name__}: {in_short(error, 300)}"
            raise RunError(f"{folder} cannot be loaded ({reason}): delete it to resume from the one before") from error
        return Checkpoint(manifest["step"], weights, state, dict(manifest["about"]))

    def latest_manifest(self) -> "Manifest | None":
        """Read `step` and `about` of the checkpoint that `load_latest` would load. RunError if all are damaged."""
        return self._find_intact()[1]

    def newest_step(self) -> int:
        """Return the step of the newest intact checkpoint, or -1 if there is none."""
        try:
            manifest = self.latest_manifest()
        except RunError:
            return -1
        return manifest["step"] if manifest else -1

    def _find_intact(self) -> "tuple[Path | None, Manifest | None, list[str]]":
        """Return the newest intact checkpoint, its manifest, and what is wrong with those that are newer."""
        damaged = []
        for folder in self._newest_first():
            try:
                return folder, _read_manifest(folder), damaged
            except FileNotFoundError:  # incomplete
                continue
            except (RunError, ConfigError) as error:
                damaged.append(f"{folder.name} ({error})")
        if damaged:
            raise RunError(
                f"{self.folder} has no intact checkpoint, {list_few(damaged)}: update the package if a newer version "
                "wrote them, else delete that folder to train from the beginning"
            )
        return None, None, []

    def _newest_first(self) -> list[Path]:
        folders = self.folder.glob("step-*") if self.folder.is_dir() else ()
        return sorted(
            (path for path in folders if step_of(path.name) >= 0), key=lambda p: step_of(p.name), reverse=True
        )


def _read_manifest(folder: Path) -> "Manifest":
    """Read a manifest, and check it and the files that it lists.

    FileNotFoundError if there is none; RunError or ConfigError if it or a file is not as it was written.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise FileNotFoundError(path)
    document: dict[str, Any] = dict(read_json(path, _Versioned, "delete it"))
    version = document["format_version"]
    if version not in (UNCHECKED_VERSION, FORMAT_VERSION):
        known = f"{UNCHECKED_VERSION} and {FORMAT_VERSION}"
        raise RunError(f"{MANIFEST}: format_version is {show(repr(version)[:20])}, but this version reads {known}")
    sha256 = document.pop("sha256", None)
    if (version == FORMAT_VERSION or sha256 is not None) and sha256 != _document_sha256(document):
        raise RunError(f"the checksum of its {MANIFEST} differs")
    manifest: Manifest = check("", Manifest, document)
    if manifest["step"] != step_of(folder.name) or manifest["about"]["epoch"] > manifest["step"]:
        raise RunError(f"its {MANIFEST} is that of another step")
    if manifest["files"].keys() != {WEIGHTS, STATE}:
        raise RunError(f"its {MANIFEST} lists other files")
    for name, listed in manifest["files"].items():
        if not _is_intact(folder / name, listed):
            raise RunError(f"its {name} is missing or damaged")
    return manifest


def _is_intact(path: Path, listed: "ListedFile") -> bool:
    try:
        has_size = path.is_file() and path.stat().st_size == listed["bytes"]
        return has_size and file_sha256(path) == listed["sha256"]
    except OSError:
        return False


def _document_sha256(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    if folder.exists():  # an incomplete or corrupted one of the same step
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    try:
        names = {CLASS_NAMES: json.dumps(checkpoint.class_names)} if checkpoint.class_names else {}
        write_tensors(checkpoint.weights, folder / WEIGHTS, **names)
        try:
            torch.save(checkpoint.state, folder / STATE)
        except RuntimeError as error:  # torch hides the cause
            raise OSError(errno.EIO, "the disk is full or failing") from error
        fsync(folder / STATE)
        files = {p.name: {"sha256": file_sha256(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir())}
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": checkpoint.step,
            "about": checkpoint.about,
            "files": files,
        }
        manifest["sha256"] = _document_sha256(manifest)
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)  # free the space
        raise


class AsyncCheckpointWriter:
    """Commits checkpoints to a store in a background thread, one at a time."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[Path] | None = None

    @property
    def is_busy(self) -> bool:
        return self.pending is not None and not self.pending.done()

    def submit(self, checkpoint: Checkpoint) -> None:
        """Start writing a checkpoint. An error of the previous write is raised here, or by `wait`."""
        self.wait()
        self.pending = self.pool.submit(self.store.commit, checkpoint)

    def wait(self) -> None:
        """Wait until the checkpoint is on disk."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the current write, and end the thread."""
        self.pool.shutdown()


class PendingCheckpoint:
    """Writes an epoch's checkpoint, where one is due, and waits until it is on disk; further calls do nothing."""

    def __init__(self, writer: AsyncCheckpointWriter | None, checkpoint: Checkpoint | None) -> None:
        self.writer, self.checkpoint = writer, checkpoint

    def __call__(self) -> None:
        checkpoint, self.checkpoint = self.checkpoint, None
        if self.writer is not None and checkpoint is not None:
            self.writer.submit(checkpoint)
            self.writer.wait()
