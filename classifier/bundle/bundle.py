"""A trained model on disk: one folder to evaluate, predict and serve from.

`model.safetensors` holds the weights, `novelty.safetensors` the out-of-distribution detector, `bundle.json` everything
else. Loading a bundle runs no code: a model that is named by import path ("package.module:Class") is imported only if
the user names that path, too (config.trust).
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from classifier import models
from classifier.bundle.schema import (
    BundleDocument,
    CalibrationDocument,
    Scores,
    Summary,
    check_agreement,
    check_scores_agree,
)
from classifier.bundle.test_reads import copy_test_reads
from classifier.config.documents import check, read_json
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig, ModelConfig
from classifier.config.trust import check_trusted
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, RunError, in_short
from classifier.inference.out_of_distribution import OODDetector
from classifier.inference.scorer import Scorer
from classifier.storage.atomic import file_sha256, retry_io, write_atomically, write_tensors
from classifier.version import versions

FORMAT_VERSION = 1
DOCUMENT, WEIGHTS, OOD_TENSORS = "bundle.json", "model.safetensors", "novelty.safetensors"
_TUPLES = ("class_names", "mean", "std")
REMEDY = "copy or train it again"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The contents of bundle.json: how to build the model, how to prepare an image, and the scores."""

    model: dict[str, Any]
    """The settings of `model`."""
    class_names: tuple[str, ...]
    channels: int
    size: int
    """Image size: the side of the model's square input, in pixels."""
    fit: str
    """How an image becomes square: crop, pad or stretch."""
    mean: tuple[float, ...]
    """Per channel of the training images, in [0, 1]."""
    std: tuple[float, ...]
    test_flip: bool
    """Average each prediction with that for the mirrored image."""
    scores: dict[str, Any]
    """Scores of these weights on `validation` and `test` (see compute_scores); None if not measured."""
    experiment: dict[str, Any]
    """Every setting of the run, resolved."""
    dataset: dict[str, Any]
    provenance: dict[str, Any]
    """When, after which epoch and with which package versions the bundle was made."""
    calibration: dict[str, Any] | None = None
    """Calibration.as_dict, once calibrated: temperature, prediction sets, thresholds."""
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_training(cls, experiment: Experiment, dataset: Dataset, *, scores: dict[str, Any], epoch: int) -> "Bundle":
        """Describe the model of a resolved experiment after `epoch`."""
        settings = experiment.as_dict()
        scorer = Scorer.from_experiment(experiment, dataset, torch.device("cpu"))
        timestamp = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            model=settings["model"],
            class_names=dataset.class_names,
            channels=dataset.channels,
            size=dataset.size,
            fit=dataset.fit,
            mean=scorer.mean,
            std=scorer.std,
            test_flip=experiment.augment.test_flip,
            scores={"validation": None, "test": None} | scores,
            experiment=settings,
            dataset=dataset.summary(),
            provenance={"made": timestamp, "epoch": epoch, "versions": versions()},
        )

    def scorer(self, device: torch.device) -> Scorer:
        """Return the scorer that the model was evaluated with, on `device`.

        It has the same precision, except that fp16 becomes fp32, which is more exact, without a GPU.
        """
        settings = self.experiment["train"]
        precision = settings["precision"]
        return Scorer(
            class_names=self.class_names,
            size=self.size,
            mean=self.mean,
            std=self.std,
            device=device,
            precision="fp32" if precision == "fp16" and device.type != "cuda" else precision,
            channels_last=settings["channels_last"],
            test_flip=self.test_flip,
            temperature=self.calibration["temperature"] if self.calibration else 1.0,
        )


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


def save(bundle: Bundle, model: nn.Module, folder: Path, ood_tensors: dict[str, Tensor] | None = None) -> None:
    """Write the bundle into `folder`, replacing an older one; ood_tensors: those of its OODDetector.

    `find` leads to a complete bundle at every moment, the older or the new one, even if the process is killed.
    RunError if it cannot be written.
    """
    folder = Path(folder)
    part, older = _sibling(folder, "part"), _sibling(folder, "older")
    # Clones: tied weights share memory, which safetensors refuses; channels_last ones are not contiguous.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}

    def write() -> None:
        _restore_older(folder)
        if folder.exists() and not (folder / DOCUMENT).is_file():
            raise RunError(f"{folder} already exists and is not a bundle: choose another folder")
        shutil.rmtree(part, ignore_errors=True)  # left by an interrupted save
        part.mkdir(parents=True)
        files = {WEIGHTS: tensors} | ({OOD_TENSORS: ood_tensors} if ood_tensors else {})
        for name, content in files.items():
            write_tensors(content, part / name, format="pt", class_names=json.dumps(bundle.class_names))
        document = dataclasses.asdict(bundle) | {"files": {n: {"sha256": file_sha256(part / n)} for n in files}}
        write_atomically(part / DOCUMENT, _to_json(document))
        copy_test_reads(folder, part)
        # A folder cannot be renamed onto one that is not empty, so the older one moves aside; `find` looks there too.
        if folder.exists():
            folder.rename(older)
        part.rename(folder)
        shutil.rmtree(older, ignore_errors=True)

    retry_io(write, folder)


def find(path: str | Path) -> Path:
    """Find the bundle's folder, given that folder or the folder of a run or a search. RunError if there is none."""
    path = Path(path)
    for folder in (path, path / "bundle"):
        for candidate in (folder, _sibling(folder, "older")):
            if (candidate / DOCUMENT).is_file():
                return candidate
    if not path.exists():
        raise RunError(f"{path} does not exist: give the folder of a run, a search or a bundle")
    if (path / "experiment.yaml").is_file():
        raise RunError(f"{path} has no model yet: the run did not finish its first epoch; resume it with --resume")
    raise RunError(f"{path} is not a run, search or bundle folder: it has neither {DOCUMENT} nor bundle/{DOCUMENT}")


def bundle_folder(path: str | Path) -> Path:
    """Return the folder to save the bundle to that `find` finds. RunError as in `find`.

    They differ after a save that was killed, which left the older bundle moved aside.
    """
    found = find(path)
    is_aside = found.name.startswith(".") and found.name.endswith(".older")
    return found.parent / found.name[1:].removesuffix(".older") if is_aside else found


def read(path: str | Path) -> Bundle:
    """Read bundle.json only, given a bundle, run or search folder. RunError as in `load`."""
    return _parse(_read_document(find(path)))


def load(path: str | Path, device: torch.device | str = "cpu") -> LoadedBundle:
    """Load a bundle with its model, in eval mode on `device`, given a bundle, run or search folder.

    RunError if there is none, or it is corrupted or of an unknown format_version; ModelError if its model (a user's own
    class, timm's) is not installed.
    """
    folder = find(path)
    document = _read_document(folder)
    bundle, settings = _parse(document), ModelConfig(**document["model"])
    check_trusted(settings.name, folder / DOCUMENT)
    try:
        tensors = _read_tensors(folder / WEIGHTS, document)
    except RunError:
        if _read_document(find(path)) != document:  # a training has just saved a better one
            return load(path, device)
        raise
    model = models.build(
        settings, classes=len(bundle.class_names), channels=bundle.channels, size=bundle.size, weights=False
    )
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise RunError(
            f"{folder}: its weights do not fit model.name {settings.name} as it is defined now "
            f"({in_short(error, 160)}): use the code it was trained with"
        ) from None
    return LoadedBundle(bundle, bundle.scorer(torch.device(device)).prepare_model(model))


def load_ood_tensors(path: str | Path) -> dict[str, Tensor] | None:
    """Load the tensors of the bundle's OODDetector; None if it has none. RunError as in `load`."""
    folder = find(path)
    document = _read_document(folder)
    if OOD_TENSORS not in document["files"]:
        return None
    tensors = _read_tensors(folder / OOD_TENSORS, document)
    if not OODDetector(tensors).is_whole:
        raise RunError(f"{folder / OOD_TENSORS} is corrupted (it is no detector): {REMEDY}")
    return tensors


def update_scores(path: str | Path, split: str, scores: dict[str, Any] | None) -> Bundle:
    """Write the scores of `validation` or `test` into the bundle; return the updated bundle. RunError as in `load`."""
    folder = find(path)
    document = _read_document(folder)
    bundle = _parse(document)
    if split not in bundle.scores:
        raise RunError(f"a bundle has scores for {' and '.join(bundle.scores)}, not for {split!r}")
    document["scores"] = bundle.scores | {split: scores}
    write_atomically(folder / DOCUMENT, _to_json(document))
    return dataclasses.replace(bundle, scores=document["scores"])


def _read_tensors(path: Path, document: BundleDocument) -> dict[str, Tensor]:
    """Load the tensors of a file, after checking it against its checksum in the document."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        content = path.read_bytes()  # read once: the bytes that are checked are those that are loaded
        if hashlib.sha256(content).hexdigest() != document["files"][path.name]["sha256"]:
            raise RunError(f"{path} was changed after it was saved (its checksum differs): {REMEDY}")
        return load_tensors(content)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None
    except (SafetensorError, KeyError, TypeError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 160)}): {REMEDY}") from None


def _read_document(folder: Path) -> BundleDocument:
    """Read bundle.json and check it. RunError names the file and the wrong key."""
    path = folder / DOCUMENT
    document = read_json(path, BundleDocument, REMEDY, FORMAT_VERSION)
    try:
        check_agreement(document)
        for split, scores in document["scores"].items():
            if scores is not None:
                document["scores"][split] = _check_scores(f"scores.{split}", scores, document["class_names"])
        Experiment.from_dict(document["experiment"])
        ModelConfig(**document["model"])
        DataConfig(fit=cast("Any", document["fit"]))
    except (TypeError, ConfigError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 200)}): {REMEDY}") from None
    return document


def read_scores(path: Path) -> dict[str, Any]:
    """Read the scores of a run without a model of its own, a cross-validation. RunError if they are corrupted."""
    scores = read_json(path, Scores, REMEDY)
    try:
        check_scores_agree("scores", scores)
    except ConfigError as error:
        raise RunError(f"{path} is corrupted ({error}): {REMEDY}") from None
    return dict(scores)


def _check_scores(key: str, scores: dict[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    if "intervals" not in scores:  # of an epoch: few
        return check(key, Summary, scores)
    checked = check(key, Scores, scores)
    check_scores_agree(key, checked, class_names)
    return checked


def _parse(document: BundleDocument) -> Bundle:
    names = [field.name for field in dataclasses.fields(Bundle)]
    # The key is missing in bundles written before there was calibration.
    values: dict[str, Any] = {"calibration": None} | {name: value for name, value in document.items() if name in names}
    values |= {name: tuple(values[name]) for name in _TUPLES}
    if values["calibration"] is not None:
        values["calibration"] = {name: values["calibration"][name] for name in CalibrationDocument.__annotations__}
    # Settings that this version has added get their defaults.
    values["experiment"] = Experiment.from_dict(values["experiment"]).as_dict()
    return Bundle(**values)


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.parent / f".{folder.name}.{suffix}"


def _restore_older(folder: Path) -> None:
    """Clean up after a save that was killed around its two renames: restore the older bundle, or remove it."""
    older = _sibling(folder, "older")
    if older.exists():
        if (folder / DOCUMENT).is_file():
            shutil.rmtree(older)
        else:
            older.rename(folder)


def _to_json(document: Mapping[str, object]) -> str:
    """Strict JSON, with one line per row of the confusion matrix. JSON strings contain no line breaks."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    return re.sub(r"\[\n[\s\d,]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text) + "\n"
