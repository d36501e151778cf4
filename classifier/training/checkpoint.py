"""Checkpoints on disk: complete or absent.

A checkpoint is a folder `step-00001234/` of files and, written last, `manifest.json` with their checksums. A reader
takes the newest whose manifest and checksums hold, so a death at any moment costs at most the work since the last one.
Weights are safetensors; the rest of the state is loaded with torch's `weights_only`, which executes no code.
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
    """A whole checkpoint in memory: `weights` of the model, `state` of everything else, `about` as plain data."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    about: dict[str, Any]

    def copy_to_cpu(self) -> "Checkpoint":
        """The same on the CPU, in memory that nobody else writes to."""
        copy: dict[str, Any] = _copied({"weights": self.weights, "state": self.state})
        return Checkpoint(self.step, copy["weights"], copy["state"], self.about)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value


@dataclass(frozen=True)
class CheckpointStore:
    """A folder of checkpoints; the last `keep` are kept."""

    folder: Path
    keep: int = 2

    def commit(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint whose tensors share no memory; it exists once its manifest does.

        Older ones than the last `keep` are removed. RunError if it cannot be written.
        """
        place = self.folder / f"step-{checkpoint.step:08d}"
        retry_io(lambda: _write(checkpoint, place), place)
        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return place

    def load_latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, on the CPU; unfinished and damaged ones are passed over.

        RunError if the newest is of a format that this version does not know.
        """
        from safetensors.torch import load_file

        for place in self._newest_first():
            manifest = self._whole(place)
            if manifest is not None:
                return Checkpoint(
                    step=manifest["step"],
                    weights=load_file(place / "weights.safetensors"),
                    state=torch.load(place / "state.pt", map_location="cpu", weights_only=True),
                    about=manifest["about"],
                )
        return None

    def latest_manifest(self) -> dict[str, Any] | None:
        """`step` and `about` of the checkpoint that `latest` would give, without its tensors."""
        return next((m for place in self._newest_first() if (m := self._whole(place)) is not None), None)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True) if self.folder.is_dir() else []

    def _whole(self, place: Path) -> dict[str, Any] | None:
        try:
            manifest = json.loads((place / "manifest.json").read_text())
            check_format_version(manifest, place / "manifest.json", FORMAT_VERSION)
            good = all(file_sha256(place / name) == about["sha256"] for name, about in manifest["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return manifest if good else None


def _write(checkpoint: Checkpoint, place: Path) -> None:
    if place.exists():  # an unfinished or damaged one of the same step
        shutil.rmtree(place)
    place.mkdir(parents=True)
    try:
        write_tensors(checkpoint.weights, place / "weights.safetensors")
        try:
            torch.save(checkpoint.state, place / "state.pt")
        except RuntimeError as error:  # whatever the disk said
            raise OSError(errno.EIO, "the disk is full, or fails") from error
        fsync(place / "state.pt")
        files = {p.name: {"sha256": file_sha256(p), "bytes": p.stat().st_size} for p in sorted(place.iterdir())}
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": checkpoint.step,
            "about": checkpoint.about,
            "files": files,
        }
        write_atomically(place / "manifest.json", json.dumps(manifest, indent=1))
    except OSError:
        shutil.rmtree(place, ignore_errors=True)  # it may take the room that others need
        raise


class AsyncCheckpointWriter:
    """Commits checkpoints to a store in a thread of its own, one at a time, while the training goes on."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[Path] | None = None

    @property
    def is_busy(self) -> bool:
        return self.pending is not None and not self.pending.done()

    def submit(self, checkpoint: Checkpoint) -> None:
        """Have it written. An error of the write before is raised here, or by `wait`."""
        self.wait()
        self.pending = self.pool.submit(self.store.commit, checkpoint)

    def wait(self) -> None:
        """Until it is on disk."""
        begun, self.pending = self.pending, None
        if begun is not None:
            begun.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        self.pool.shutdown()
