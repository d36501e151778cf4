"""Checkpoints on disk: complete or absent.

A checkpoint is a folder `step-00001234/` of files and, written last, `manifest.json` with their checksums. A reader
takes the newest one whose manifest and checksums hold, so a crash loses at most the work since then. Weights are
safetensors; everything else is loaded by torch with `weights_only`, which executes no code.
"""

import errno
import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.storage.atomic import (
    check_format_version,
    file_sha256,
    fsync,
    retry_io,
    write_atomically,
    write_tensors,
)

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: `weights` of the model, `state` of everything else, and metadata `about` it."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    about: dict[str, Any]

    def copy_to_cpu(self) -> "Checkpoint":
        """Copy all tensors to the CPU, into memory that nothing else writes to."""
        copy: dict[str, Any] = _copy_to_cpu({"weights": self.weights, "state": self.state})
        return Checkpoint(self.step, copy["weights"], copy["state"], self.about)


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
        """Load the newest complete checkpoint to the CPU; skip incomplete and corrupted ones.

        RunError if the newest has a format that this version does not know.
        """
        from safetensors.torch import load_file

        for folder in self._newest_first():
            manifest = self._valid_manifest(folder)
            if manifest is not None:
                return Checkpoint(
                    step=manifest["step"],
                    weights=load_file(folder / "weights.safetensors"),
                    state=torch.load(folder / "state.pt", map_location="cpu", weights_only=True),
                    about=manifest["about"],
                )
        return None

    def latest_manifest(self) -> dict[str, Any] | None:
        """Read `step` and `about` of the checkpoint that `load_latest` would load."""
        return next((m for folder in self._newest_first() if (m := self._valid_manifest(folder)) is not None), None)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True) if self.folder.is_dir() else []

    def _valid_manifest(self, folder: Path) -> dict[str, Any] | None:
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            check_format_version(manifest, folder / "manifest.json", FORMAT_VERSION)
            is_valid = all(file_sha256(folder / name) == about["sha256"] for name, about in manifest["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return manifest if is_valid else None


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    if folder.exists():  # an incomplete or corrupted one of the same step
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    try:
        write_tensors(checkpoint.weights, folder / "weights.safetensors")
        try:
            torch.save(checkpoint.state, folder / "state.pt")
        except RuntimeError as error:  # torch hides the cause
            raise OSError(errno.EIO, "the disk is full or failing") from error
        fsync(folder / "state.pt")
        files = {p.name: {"sha256": file_sha256(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir())}
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": checkpoint.step,
            "about": checkpoint.about,
            "files": files,
        }
        write_atomically(folder / "manifest.json", json.dumps(manifest, indent=1))
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
