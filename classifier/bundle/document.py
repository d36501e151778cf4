"""The document of a trained model on disk, bundle.json, and the bundle's detector: read without loading torch.

`model.safetensors` holds the weights, `novelty.safetensors` the out-of-distribution detector, `reference.safetensors`
what drift is measured against, `bundle.json` everything else. bundle.py saves and loads all of it; exports of the model
for other runtimes lie in folders beside these files.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from classifier.bundle.hub_repository import download_bundle, is_hub_address
from classifier.bundle.schema import (
    BundleDocument,
    CalibrationDocument,
    Checksum,
    check_agreement,
    check_scores,
)
from classifier.config.documents import read_json
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig, ModelConfig, Task
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import ConfigError, RunError, in_short, list_few
from classifier.inference.ood_detector import OODDetector
from classifier.inference.reference import Reference
from classifier.metrics.hierarchy import Hierarchy
from classifier.storage.atomic import write_atomically
from classifier.version import versions

if TYPE_CHECKING:
    import torch

    from classifier.data.dataset import Dataset
    from classifier.inference.scorer import Scorer

FORMAT_VERSION = 1
DOCUMENT, WEIGHTS, OOD_TENSORS = "bundle.json", "model.safetensors", "novelty.safetensors"
PRETRAINING = "pretrain.json"
"""In the run folder of a pretraining, which has no bundle: its method."""
REFERENCE = "reference.safetensors"
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
    task: Task = "multiclass"
    columns: ColumnSchema | None = None
    """The columns of a table that join the image; None if there are none."""
    fusion: dict[str, Any] | None = None
    """How the columns join the image, and how other ways did: a FusionDocument."""
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_training(
        cls, experiment: Experiment, dataset: "Dataset", *, scores: dict[str, Any], epoch: int
    ) -> "Bundle":
        """Describe the model of a resolved experiment after `epoch`."""
        import torch

        from classifier.inference.scorer import Scorer

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
            task=dataset.task,
            columns=dataset.columns,
        )

    @property
    def hierarchy(self) -> Hierarchy | None:
        """The classes above those of the model, where these are nested."""
        return Hierarchy(self.class_names) if self.task == "nested" else None

    @property
    def shape(self) -> dict[str, Any]:
        """What models.build needs beside the settings of `model`."""
        shape = {"classes": len(self.class_names), "channels": self.channels, "size": self.size, "task": self.task}
        return shape | ({"column_widths": self.columns.widths} if self.columns else {})

    def as_document(self) -> dict[str, Any]:
        """Return the contents of bundle.json, but for `files`: plain data."""
        columns = None if self.columns is None else self.columns.as_dict()
        return dataclasses.asdict(self) | {"columns": columns}

    def with_importance(self, split: str, importance: dict[str, Any] | None) -> "Bundle":
        """Return the bundle with the importance of its inputs (an ImportanceDocument) on a split; None removes it."""
        fusion = self.fusion or {"chosen": "mlp", "images": 0}  # of a training that was stopped
        others = {name: one for name, one in fusion.get("importance", {}).items() if name != split}
        if importance is not None:
            others[split] = importance
        elif self.fusion is None:
            return self
        return dataclasses.replace(self, fusion=fusion | {"importance": others})

    def refuse_columns(self, verb: str) -> None:
        """Raise ConfigError if columns join the image, for a verb that knows images alone."""
        if self.columns:
            raise ConfigError(
                f"{verb} knows images alone, and this model also columns ({list_few(self.columns.names)}): train one "
                "without data.columns for it"
            )

    def refuse_labels(self, verb: str) -> None:
        """Raise ConfigError if the model gives an image several labels, for a verb that knows one class only."""
        if self.task == "multilabel":
            raise ConfigError(
                f"{verb} knows one class an image, and this model several labels (data.task multilabel): "
                "evaluate, calibrate and export it instead"
            )

    def scorer(self, device: "torch.device") -> "Scorer":
        """Return the scorer that the model was evaluated with, on `device`.

        It has the same precision, except that fp16 becomes fp32, which is more exact, without a GPU.
        """
        from classifier.inference.scorer import Scorer

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
            task=self.task,
            temperature=self.calibration["temperature"] if self.calibration else 1.0,
        )


def find(path: str | Path) -> Path:
    """Find the bundle's folder, given that folder or the folder of a run or a search, or hf://OWNER/NAME.

    RunError if there is none; ModelError where hf:// needs a package that is not installed.
    """
    if is_hub_address(path):
        return download_bundle(str(path))
    path = Path(path)
    for folder in (path, path / "bundle"):
        for candidate in (folder, sibling(folder, "older")):
            if (candidate / DOCUMENT).is_file():
                return candidate
    if not path.exists():
        raise RunError(f"{path} does not exist: give the folder of a run, a search or a bundle")
    if (path / PRETRAINING).is_file():
        raise RunError(
            f"{path} has weights without a classifier: train with --model.weights {path / 'weights.safetensors'}"
        )
    if (path / "experiment.yaml").is_file():
        raise RunError(f"{path} has no model yet: the run did not finish its first epoch; resume it with --resume")
    raise RunError(f"{path} is not a run, search or bundle folder: it has neither {DOCUMENT} nor bundle/{DOCUMENT}")


def bundle_folder(path: str | Path) -> Path:
    """Return the folder to save the bundle to that `find` finds. RunError as in `find`.

    They differ after a save that was killed, which left the older bundle moved aside.
    """
    found = find(_check_writable(path))
    is_aside = found.name.startswith(".") and found.name.endswith(".older")
    return found.parent / found.name[1:].removesuffix(".older") if is_aside else found


def _check_writable(path: str | Path) -> str | Path:
    if is_hub_address(path):
        raise RunError(f"{path} is in the hub, and nothing is written there: download it, and give its folder")
    return path


def read(path: str | Path) -> Bundle:
    """Read bundle.json only, given a bundle, run or search folder. RunError as in `bundle.load`."""
    return parse_document(read_document(find(path)))


def load_ood_detector(path: str | Path) -> OODDetector | None:
    """Load the bundle's detector; None if it has none. RunError as in `bundle.load`."""
    folder = find(path)
    files = read_document(folder)["files"]
    return read_ood_detector(folder / OOD_TENSORS, files) if OOD_TENSORS in files else None


def read_ood_detector(path: Path, files: Mapping[str, Checksum]) -> OODDetector:
    """Read a file of a detector, after checking it against its checksum. RunError if it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        detector = OODDetector(load(read_verified(path, files)))
    except (SafetensorError, KeyError, TypeError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 160)}): {REMEDY}") from None
    if not detector.is_whole:
        raise RunError(f"{path} is corrupted (it is no detector): {REMEDY}")
    return detector


def load_reference(path: str | Path) -> Reference | None:
    """Load what drift is measured against; None if the bundle has none. RunError as in `bundle.load`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder = find(path)
    files = read_document(folder)["files"]
    if REFERENCE not in files:
        return None
    file = folder / REFERENCE
    try:
        reference = Reference(load(read_verified(file, files)))
    except (SafetensorError, KeyError, TypeError) as error:
        raise RunError(f"{file} is corrupted ({in_short(error, 160)}): {REMEDY}") from None
    if fault := reference.fault:
        raise RunError(f"{file} is corrupted ({fault}): {REMEDY}")
    return reference


def read_verified(path: Path, files: Mapping[str, Checksum]) -> bytes:
    """Read a file once, so that the bytes that are checked are those that are used. RunError if it was changed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None
    if path.name not in files or hashlib.sha256(content).hexdigest() != files[path.name]["sha256"]:
        raise RunError(f"{path} was changed after it was saved (its checksum differs): {REMEDY}")
    return content


def update_scores(
    path: str | Path, split: str, scores: dict[str, Any] | None, importance: dict[str, Any] | None = None
) -> Bundle:
    """Write the scores of `validation` or `test` into the bundle; return the updated bundle. RunError as in `load`.

    importance: of the inputs of a model with columns, on this split (an ImportanceDocument).
    """
    folder = find(_check_writable(path))
    document = read_document(folder)
    bundle = parse_document(document)
    if split not in bundle.scores:
        raise RunError(f"a bundle has scores for {' and '.join(bundle.scores)}, not for {split!r}")
    document["scores"] = bundle.scores | {split: scores}
    bundle = dataclasses.replace(bundle, scores=document["scores"]).with_importance(split, importance)
    if bundle.fusion is not None:
        document["fusion"] = cast("Any", bundle.fusion)
    write_atomically(folder / DOCUMENT, to_json(document))
    return bundle


def update_fusion(path: str | Path, fusion: dict[str, Any]) -> None:
    """Write into the bundle how columns join the image (a FusionDocument). RunError as in `load`."""
    folder = find(_check_writable(path))
    document = read_document(folder)
    document["fusion"] = cast("Any", fusion)
    write_atomically(folder / DOCUMENT, to_json(document))


def read_document(folder: Path) -> BundleDocument:
    """Read and check bundle.json of a bundle's own folder. RunError names the file and the wrong key."""
    path = folder / DOCUMENT
    document = read_json(path, BundleDocument, REMEDY, FORMAT_VERSION)
    try:
        check_agreement(document)
        for split, scores in document["scores"].items():
            if scores is not None:
                document["scores"][split] = check_scores(
                    f"scores.{split}",
                    scores,
                    document["class_names"],
                    is_multilabel=document.get("task") == "multilabel",
                )
        Experiment.from_dict(document["experiment"])
        ModelConfig(**document["model"])
        DataConfig(fit=cast("Any", document["fit"]))
        if document.get("columns") is not None:
            ColumnSchema.from_dict(document.get("columns"))
    except (TypeError, ConfigError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 200)}): {REMEDY}") from None
    return document


def read_scores(path: Path) -> dict[str, Any]:
    """Read the scores of a run without a model of its own, a cross-validation. RunError if they are corrupted."""
    scores = read_json(path, dict[str, Any], REMEDY)
    try:
        if "intervals" not in scores:
            raise ConfigError("intervals is missing")
        return check_scores("scores", scores, is_multilabel="subset_accuracy" in scores)
    except ConfigError as error:
        raise RunError(f"{path} is corrupted ({error}): {REMEDY}") from None


def parse_document(document: BundleDocument) -> Bundle:
    """Return the contents of a document that `read_document` has checked."""
    names = [field.name for field in dataclasses.fields(Bundle)]
    # Keys are missing in bundles written before there was calibration, or another task.
    values: dict[str, Any] = {"calibration": None, "task": "multiclass", "columns": None, "fusion": None}
    values |= {name: value for name, value in document.items() if name in names}
    values |= {name: tuple(values[name]) for name in _TUPLES}
    if values["calibration"] is not None:
        plain = values["calibration"]
        values["calibration"] = {name: plain[name] for name in CalibrationDocument.__annotations__ if name in plain}
    if values["columns"] is not None:
        values["columns"] = ColumnSchema.from_dict(values["columns"])
    # Settings that this version has added get their defaults.
    values["experiment"] = Experiment.from_dict(values["experiment"]).as_dict()
    return Bundle(**values)


def sibling(folder: Path, suffix: str) -> Path:
    """Return the hidden folder beside a bundle that is being saved: `part`, or the `older` one moved aside."""
    return folder.parent / f".{folder.name}.{suffix}"


def to_json(document: Mapping[str, object]) -> str:
    """Return strict JSON, with one line per row of the confusion matrix. JSON strings contain no line breaks."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    return re.sub(r"\[\n[\s\d,]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text) + "\n"
