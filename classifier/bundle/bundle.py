"""A trained model on disk: one folder to evaluate, predict and serve from.

document.py describes it, and reads what needs no torch. Loading a bundle runs no code: a model that is named by import
path ("package.module:Class") is imported only if the user names that path, too (config.trust).
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from classifier import models
from classifier.bundle.document import (
    DOCUMENT,
    OOD_TENSORS,
    REFERENCE,
    REMEDY,
    WEIGHTS,
    Bundle,
    find,
    parse_document,
    read_document,
    read_verified,
    sibling,
    to_json,
)
from classifier.bundle.document import bundle_folder as bundle_folder  # for whoever loads, or saves
from classifier.bundle.document import load_ood_detector as load_ood_detector
from classifier.bundle.document import load_reference as load_reference
from classifier.bundle.document import read as read
from classifier.bundle.document import read_scores as read_scores
from classifier.bundle.document import update_fusion as update_fusion
from classifier.bundle.document import update_scores as update_scores
from classifier.bundle.exported import FORMATS, is_exported
from classifier.bundle.schema import BundleDocument
from classifier.bundle.test_reads import copy_test_reads
from classifier.bundle.timm_config import write_timm_config
from classifier.config.sections import ModelConfig
from classifier.config.trust import check_trusted
from classifier.errors import RunError, in_short
from classifier.inference.ood_detector import OODDetector
from classifier.inference.reference import Reference
from classifier.inference.scorer import Scorer
from classifier.storage.atomic import file_sha256, retry_io, write_atomically, write_tensors


class LoadedBundle(NamedTuple):
    """A bundle with its model in memory: load once, then pass it on."""

    bundle: Bundle
    model: nn.Module

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def scorer(self) -> Scorer:
        """Return the bundle's scorer, on the model's device."""
        return self.bundle.scorer(self.device)


def save(
    bundle: Bundle,
    model: nn.Module,
    folder: Path,
    detector: OODDetector | None = None,
    reference: Reference | None = None,
) -> None:
    """Write the bundle into `folder`, replacing an older one.

    Exports of the older one stay, and are not used where they do not fit any more (exported.explain_stale). `find`
    leads to a complete bundle at every moment, the older or the new one, even if the process is killed. RunError if it
    cannot be written.
    """
    folder = Path(folder)
    part, older = sibling(folder, "part"), sibling(folder, "older")
    # Clones: tied weights share memory, which safetensors refuses; channels_last ones are not contiguous.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}

    def write() -> None:
        _restore_older(folder)
        if folder.exists() and not (folder / DOCUMENT).is_file():
            raise RunError(f"{folder} already exists and is not a bundle: choose another folder")
        shutil.rmtree(part, ignore_errors=True)  # left by an interrupted save
        part.mkdir(parents=True)
        files = {WEIGHTS: tensors}
        if detector:
            files[OOD_TENSORS] = {name: torch.from_numpy(array) for name, array in detector.arrays.items()}
        if reference:
            files[REFERENCE] = _to_tensors(reference)
        for name, content in files.items():
            write_tensors(content, part / name, format="pt", class_names=json.dumps(bundle.class_names))
        document = bundle.as_document() | {"files": {n: {"sha256": file_sha256(part / n)} for n in files}}
        write_atomically(part / DOCUMENT, to_json(document))
        write_timm_config(bundle, model, part)
        copy_test_reads(folder, part)
        for kind in FORMATS:
            if is_exported(folder, kind):
                shutil.copytree(folder / kind, part / kind)
        # A folder cannot be renamed onto one that is not empty, so the older one moves aside; `find` looks there too.
        if folder.exists():
            folder.rename(older)
        part.rename(folder)
        shutil.rmtree(older, ignore_errors=True)

    retry_io(write, folder)


def load(path: str | Path, device: torch.device | str = "cpu") -> LoadedBundle:
    """Load a bundle with its model, in eval mode on `device`, given a bundle, run or search folder.

    RunError if there is none, or it is corrupted or of an unknown format_version; ModelError if its model (a user's own
    class, timm's) is not installed.
    """
    folder = find(path)
    document = read_document(folder)
    bundle, settings = parse_document(document), ModelConfig(**document["model"])
    check_trusted(settings.name, folder / DOCUMENT)
    try:
        tensors = _read_tensors(folder / WEIGHTS, document)
    except RunError:
        if read_document(find(path)) != document:  # a training has just saved a better one
            return load(path, device)
        raise
    model = models.build(settings, **bundle.shape, weights=False)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise RunError(
            f"{folder}: its weights do not fit model.name {settings.name} as it is defined now "
            f"({in_short(error, 160)}): use the code it was trained with"
        ) from None
    return LoadedBundle(bundle, bundle.scorer(torch.device(device)).prepare_model(model))


def _read_tensors(path: Path, document: BundleDocument) -> dict[str, Tensor]:
    """Load the tensors of a file, after checking it against its checksum in the document."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        return load_tensors(read_verified(path, document["files"]))
    except (SafetensorError, KeyError, TypeError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 160)}): {REMEDY}") from None


def update_reference(path: str | Path, reference: Reference) -> None:
    """Store what drift is measured against in a bundle. RunError as in `load`."""
    folder = bundle_folder(path)
    part = folder / f".{REFERENCE}.part"

    def write() -> None:
        write_tensors(_to_tensors(reference), part, format="pt")
        document = read_document(folder)
        document["files"][REFERENCE] = {"sha256": file_sha256(part)}
        part.replace(folder / REFERENCE)
        write_atomically(folder / DOCUMENT, to_json(document))

    retry_io(write, folder)


def _to_tensors(reference: Reference) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in reference.arrays.items()}


def _restore_older(folder: Path) -> None:
    """Clean up after a save that was killed around its two renames: restore the older bundle, or remove it."""
    older = sibling(folder, "older")
    if older.exists():
        if (folder / DOCUMENT).is_file():
            shutil.rmtree(older)
        else:
            older.rename(folder)
