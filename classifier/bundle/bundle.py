"""The finished model: one folder from which it is evaluated, predicted with and served.

`model.safetensors` holds the weights, `novelty.safetensors` what tells pictures unlike those of the training,
`bundle.json` all the rest. Loading one runs no code out of the folder; but a
model that was named by import path ("package.module:Class") is imported again by that name, from the user's own code.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from classifier import models
from classifier.config.experiment import Experiment
from classifier.config.sections import ModelConfig
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, RunError, in_short
from classifier.inference.scorer import Scorer
from classifier.storage.atomic import check_format_version, file_sha256, retry_io, write_atomically, write_tensors
from classifier.version import versions

FORMAT_VERSION = 1
DOCUMENT, WEIGHTS, OOD_TENSORS = "bundle.json", "model.safetensors", "novelty.safetensors"
_TUPLES = ("class_names", "mean", "std")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What bundle.json says: how to build the model, how to prepare an image, and what came of it."""

    model: dict[str, Any]
    """The settings of `model`."""
    class_names: tuple[str, ...]
    channels: int
    size: int
    """Side of the square the model sees, in pixels."""
    fit: str
    """How a picture becomes square: crop, pad or stretch."""
    mean: tuple[float, ...]
    """Of each channel of the training images, in [0, 1]."""
    std: tuple[float, ...]
    test_flip: bool
    """Average each prediction with that of the mirrored image."""
    scores: dict[str, Any]
    """Of these weights: `validation` and `test`, each as Tally.scores, or None until it was measured."""
    experiment: dict[str, Any]
    """Every setting of the run, resolved."""
    dataset: dict[str, Any]
    provenance: dict[str, Any]
    """When, at which epoch and with which versions it was made."""
    calibration: dict[str, Any] | None = None
    """Calibration.as_dict, once it was learned: temperature, sets, thresholds."""
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_training(cls, experiment: Experiment, dataset: Dataset, *, scores: dict[str, Any], epoch: int) -> "Bundle":
        """The bundle of a resolved experiment on its data, after `epoch`."""
        settings = experiment.as_dict()
        scorer = Scorer.from_experiment(experiment, dataset, torch.device("cpu"))
        made = datetime.now(UTC).isoformat(timespec="seconds")
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
            provenance={"made": made, "epoch": epoch, "versions": versions()},
        )

    def scorer(self, device: torch.device) -> Scorer:
        """The scorer that measured this model, on `device`.

        The number format is the one it was measured in; fp16 becomes fp32, which is more exact, where there is no GPU.
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
        """The bundle's scorer, on the model's device."""
        return self.bundle.scorer(self.device)


def save(bundle: Bundle, model: nn.Module, folder: Path, ood_tensors: dict[str, Tensor] | None = None) -> None:
    """Write the bundle of a model into `folder`, in place of an older one, with the tensors of its Novelty.

    At every moment `find` leads to a whole bundle, the older or the new one, whenever the process dies.
    RunError if it cannot be written.
    """
    folder = Path(folder)
    part, older = _beside(folder, "part"), _beside(folder, "older")
    # Clones: tied weights share memory, which safetensors refuses; channels_last ones are not contiguous.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}

    def write() -> None:
        _bring_back(folder)
        if folder.exists() and not (folder / DOCUMENT).is_file():
            raise RunError(f"{folder} is there already and is no bundle: choose another folder")
        shutil.rmtree(part, ignore_errors=True)  # what an interrupted save left
        part.mkdir(parents=True)
        files = {WEIGHTS: tensors} | ({OOD_TENSORS: ood_tensors} if ood_tensors else {})
        for name, content in files.items():
            write_tensors(content, part / name, format="pt")
        document = dataclasses.asdict(bundle) | {"files": {n: {"sha256": file_sha256(part / n)} for n in files}}
        write_atomically(part / DOCUMENT, _text(document))
        # A folder cannot take the place of one that is not empty: the older one steps aside, where `find` looks too.
        if folder.exists():
            folder.rename(older)
        part.rename(folder)
        shutil.rmtree(older, ignore_errors=True)

    retry_io(write, folder)


def find(path: str | Path) -> Path:
    """The bundle's folder, given that folder, or the folder of a run or of a search. RunError if there is none."""
    path = Path(path)
    for folder in (path, path / "bundle"):
        for place in (folder, _beside(folder, "older")):
            if (place / DOCUMENT).is_file():
                return place
    if not path.exists():
        raise RunError(f"{path} does not exist: give the folder of a run, a search or a bundle")
    if (path / "experiment.yaml").is_file():
        raise RunError(f"{path} has no model yet: the run did not finish its first epoch; go on with it by --resume")
    raise RunError(f"{path} is no run, search or bundle folder: it holds neither {DOCUMENT} nor bundle/{DOCUMENT}")


def bundle_folder(path: str | Path) -> Path:
    """Where the bundle that `find` finds is saved again; elsewhere, after a save that died. RunError as `find`."""
    found = find(path)
    aside = found.name.startswith(".") and found.name.endswith(".older")
    return found.parent / found.name[1:].removesuffix(".older") if aside else found


def read(path: str | Path) -> Bundle:
    """What bundle.json says, given a bundle, run or search folder; the weights are left alone. RunError as `load`."""
    folder = find(path)
    return _parsed(_document(folder), folder)


def load(path: str | Path, device: torch.device | str = "cpu") -> LoadedBundle:
    """The bundle and its model, in eval mode on `device`, given a bundle, run or search folder.

    RunError if there is none, or it is damaged, or of an unknown format_version; ModelError if its model (a user's
    own class, timm's) is not to be had here.
    """
    folder = find(path)
    document = _document(folder)
    bundle = _parsed(document, folder)
    try:
        settings, tensors = ModelConfig(**bundle.model), _tensors(folder / WEIGHTS, document)
    except (TypeError, ConfigError) as error:
        raise RunError(f"{folder / DOCUMENT} is damaged ({in_short(error, 160)}): copy or train it again") from None
    except RunError:
        if _document(find(path)) != document:  # a training saved a better one just now
            return load(path, device)
        raise
    model = models.build(
        settings, classes=len(bundle.class_names), channels=bundle.channels, size=bundle.size, weights=False
    )
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise RunError(
            f"{folder}: its weights do not fit model.name {settings.name} as it is here now ({in_short(error, 160)}): "
            "use the code that it was trained with"
        ) from None
    return LoadedBundle(bundle, bundle.scorer(torch.device(device)).prepare_model(model))


def load_ood_tensors(path: str | Path) -> dict[str, Tensor] | None:
    """The tensors of the bundle's Novelty; None if it has none. RunError as `load`."""
    folder = find(path)
    document = _document(folder)
    return _tensors(folder / OOD_TENSORS, document) if OOD_TENSORS in document["files"] else None


def update_scores(path: str | Path, split: str, scores: dict[str, Any] | None) -> Bundle:
    """Write the scores of `validation` or `test` into the bundle, and give it back. RunError as `load`."""
    folder = find(path)
    document = _document(folder)
    bundle = _parsed(document, folder)
    if split not in bundle.scores:
        raise RunError(f"a bundle has scores of {' and '.join(bundle.scores)}, not of {split!r}")
    document["scores"] = bundle.scores | {split: scores}
    write_atomically(folder / DOCUMENT, _text(document))
    return dataclasses.replace(bundle, scores=document["scores"])


def _tensors(path: Path, document: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file whose checksum is the document's. RunError if it is not."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        content = path.read_bytes()  # once, so that what is checked is what is loaded
        if hashlib.sha256(content).hexdigest() != document["files"][path.name]["sha256"]:
            raise RunError(f"{path} is not what was saved (its checksum differs): copy or train it again")
        return load_tensors(content)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): copy or train it again") from None
    except (SafetensorError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({in_short(error, 160)}): copy or train it again") from None


def _document(folder: Path) -> dict[str, Any]:
    path = folder / DOCUMENT
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({in_short(error, 160)}): copy or train it again") from None
    if not isinstance(document, dict):
        raise RunError(f"{path} is damaged (it is no JSON object): copy or train it again")
    check_format_version(document, path, FORMAT_VERSION)
    return document


def _parsed(document: dict[str, Any], folder: Path) -> Bundle:
    names = [field.name for field in dataclasses.fields(Bundle)]
    try:
        # Bundles of before they were calibrated are bundles too.
        known = {"calibration": None} | document
        values: dict[str, Any] = {name: known[name] for name in names}
        values |= {name: tuple(values[name]) for name in _TUPLES}
        return Bundle(**values)
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / DOCUMENT} is damaged (no {in_short(error, 160)}): copy or train it again") from None


def _beside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.{what}"


def _bring_back(folder: Path) -> None:
    """End what a save that died between its two renames began: the older bundle returns, or is removed for good."""
    older = _beside(folder, "older")
    if older.exists():
        if (folder / DOCUMENT).is_file():
            shutil.rmtree(older)
        else:
            older.rename(folder)


def _text(document: dict[str, Any]) -> str:
    """Strict JSON, a line a row of the confusion matrix. Line breaks are never inside a JSON string."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    return re.sub(r"\[\n[\s\d,]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text) + "\n"
