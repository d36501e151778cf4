"""Checkpoints on disk: complete or absent.

A checkpoint is a folder `step-00001234/` of files and, written last, `manifest.json` with their checksums. A reader
takes the newest whose manifest and checksums hold, so a death at any moment costs at most the work since the last one.
Weights are safetensors; the rest of the state is loaded with torch's `weights_only`, which executes no code.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.files import flush, refuse_unknown_format, sha256_of, write_atomically

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint in memory: `weights` of the model, `state` of everything else, `about` as plain data."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    about: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of checkpoints; the last `keep` are kept."""

    folder: Path
    keep: int = 2

    def commit(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint; it exists once its manifest does. Older ones than the last `keep` are removed."""
        from safetensors.torch import save_file

        place = self.folder / f"step-{checkpoint.step:08d}"
        if place.exists():  # an unfinished or damaged one of the same step
            shutil.rmtree(place)
        place.mkdir(parents=True)
        # Tensors that share memory (tied weights) are refused by safetensors; a checkpoint may hold them twice.
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.weights.items()},
            place / "weights.safetensors",
        )
        torch.save(checkpoint.state, place / "state.pt")
        files = {p.name: {"sha256": sha256_of(p), "bytes": p.stat().st_size} for p in sorted(place.iterdir())}
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": checkpoint.step,
            "about": checkpoint.about,
            "files": files,
        }
        for path in place.iterdir():
            flush(path)
        write_atomically(place / "manifest.json", json.dumps(manifest, indent=1))
        for old in self._newest_first()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return place

    def latest(self) -> Checkpoint | None:
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
            refuse_unknown_format(manifest, place / "manifest.json", FORMAT_VERSION)
            good = all(sha256_of(place / name) == about["sha256"] for name, about in manifest["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        return manifest if good else None
