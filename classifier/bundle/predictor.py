"""Predict with a trained model: load a bundle once, then call it on images."""

import functools
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from classifier.bundle import document
from classifier.bundle.engine_choice import has_torch, open_engine
from classifier.bundle.image_reader import ImageInput, ImageReader
from classifier.bundle.inputs.column_rows import Row, RowError
from classifier.bundle.inputs.input_reader import InputReader, Inputs
from classifier.config.sections import DataConfig, Task
from classifier.config.trust import trust as allow_imports
from classifier.data.columns.schema import IMAGE
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import ConfigError, DataError
from classifier.metrics.decisions import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from torch import nn

    from classifier.bundle.bundle import LoadedBundle
    from classifier.inference.scorer import Scorer

# Methods of explain.py.
HEATMAPS = ("grad_cam", "integrated_gradients", "occlusion")
# Classes named in the description of an uncertain prediction.
MAX_NAMED_CLASSES = 3
NO_LABEL = "no label"


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for an image. `top`: the most likely classes with their probabilities, in descending order."""

    path: Path | str | None
    """The image's file, or its name in an archive, a table or remote storage; None for an image in memory."""
    class_name: str
    """The most likely class, or label."""
    probability: float
    top: tuple[tuple[str, float], ...]
    probabilities: np.ndarray
    """probabilities_K of all classes, float32, in the order of the model's class names."""
    decision: str | None
    """class_name, or another class by the calibrated thresholds; None if the model is not sure. Of several labels the
    most likely one that is said; None without one."""
    prediction_set: tuple[str, ...]
    """Classes that contain the right one, or labels, with the calibrated coverage, the most likely first."""
    is_out_of_distribution: bool
    """The image is unlike the training images: do not trust the prediction."""
    heatmap: bytes | None = None
    """A JPEG with the evidence for class_name in orange, if it was asked for."""
    levels: tuple[tuple[str, float], ...] = ()
    """Of nested classes: the most likely one of each level above the leaves with its probability, the outermost first.
    The decision is one of these where no leaf is sure enough."""
    labels: tuple[str, ...] | None = None
    """Where an image has several labels: those that are said, the most likely first, perhaps none."""

    def __repr__(self) -> str:
        return f"<{f'{self.path}: ' if self.path else ''}{self.describe()}, {self.class_name} {self.probability:.1%}>"

    def describe(self) -> str:
        """Return the prediction in a few words."""
        if self.is_out_of_distribution:
            return f"unlike anything seen in training ({self.class_name}?)"
        if self.labels is not None:
            return ", ".join(self.labels) or NO_LABEL
        if self.decision is None:
            others = " or others" if len(self.prediction_set) > MAX_NAMED_CLASSES else ""
            return f"not sure: {' or '.join(self.prediction_set[:MAX_NAMED_CLASSES])}{others}"
        return self.decision


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read as an image, and why, in one sentence."""

    path: Path | str
    reason: str


class Judgement(NamedTuple):
    """What a model and its calibration say of a batch."""

    probabilities_NK: np.ndarray
    decisions_N: np.ndarray
    """int64: a class, or -1 where the model is not sure; of nested classes an index of Hierarchy.names."""
    in_set_NK: np.ndarray
    """bool: the classes of each prediction set."""
    ood_scores_N: np.ndarray | None
    """float32: the out-of-distribution score; None without a detector."""
    is_ood_N: np.ndarray
    """bool: out of distribution."""
    statistics_NF: np.ndarray | None = None
    """float32: channel statistics of the last layer that the detector looks at; None without a detector."""
    said_NK: np.ndarray | None = None
    """bool: the labels that are said; None where an image has one class."""

    def take(self, rows: slice) -> "Judgement":
        """Return what is said of some images of the batch."""
        columns: list[Any] = [None if values is None else values[rows] for values in self]
        return Judgement(*columns)

    @classmethod
    def empty(cls, classes: int, task: Task) -> "Judgement":
        """Return what is said of no image."""
        none_NK = np.zeros((0, classes), np.float32)
        said_NK = none_NK > 0 if task == "multilabel" else None
        return cls(none_NK, np.zeros(0, np.int64), none_NK > 0, None, np.zeros(0, bool), said_NK=said_NK)

    @classmethod
    def join(cls, judgements: "Sequence[Judgement]") -> "Judgement":
        """Join those of several batches of one model, at least one."""
        rows = zip(*([one for one in judgements if len(one.decisions_N)] or judgements[:1]), strict=True)
        columns: list[Any] = [None if values[0] is None else np.concatenate(values) for values in rows]
        return cls(*columns)


class Predictor:
    """A model from a run, search or bundle folder, with the preprocessing and calibration it was evaluated with.

    engine: torch, onnx or openvino; auto: torch on a GPU, else ONNX Runtime, which needs no torch, if the bundle holds
    an export to ONNX. trust: the import path of a model of your own, which is imported only if it is named here.
    max_pixels, max_bytes, max_seconds: limits of an image; the bundle has no say in them. threads: of an engine without
    torch; None for one per core. RunError or ModelError as in bundle.load and open_engine; ConfigError if there is no
    such device (auto, cpu, cuda, cuda:N, mps) or engine.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        engine: str = "auto",
        threads: int | None = None,
        trust: Sequence[str] = (),
        max_pixels: int = DataConfig.max_pixels,
        max_bytes: int = DataConfig.max_bytes,
        max_seconds: float = DataConfig.max_seconds,
    ) -> None:
        allow_imports(*trust)
        self.path, self.device = Path(path), device
        opened = open_engine(self.path, engine, device, threads, lambda: self.loaded)
        self.bundle, self.engine, self.calibration, self.ood_detector = opened
        self.task: Task = self.bundle.task
        self.hierarchy = self.bundle.hierarchy
        self.spec = ImageSpec(self.bundle.size, self.bundle.channels, self.bundle.fit, max_pixels)
        self.images = ImageReader(self.spec, max_bytes, max_seconds)
        self.inputs = InputReader(self.images, self.bundle.columns)

    @functools.cached_property
    def loaded(self) -> "LoadedBundle":
        """The bundle with its model in torch, loaded when it is first asked for."""
        from classifier.bundle import bundle
        from classifier.runtime.distributed import pick_device

        return bundle.load(self.path, pick_device(self.device))

    @property
    def uses_torch(self) -> bool:
        """Whether torch computes the answers, rather than an export."""
        return self.engine.description.startswith("torch")

    @property
    def model(self) -> "nn.Module":
        return self.loaded.model

    @property
    def scorer(self) -> "Scorer":
        return self.loaded.scorer()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.bundle.class_names

    @property
    def answer_names(self) -> tuple[str, ...]:
        """What decisions are indices of: the classes, and where these are nested, then the classes above them."""
        return self.hierarchy.names if self.hierarchy else self.class_names

    def __call__(
        self, images: "Sequence[ImageInput | None]", columns: Sequence[Row | None] | None = None
    ) -> np.ndarray:
        """probabilities_NK, float32. Inputs and errors as of predict."""
        batches = [np.zeros((0, len(self.class_names)), np.float32)]
        for inputs in self._read_all(images, columns):
            batches.append(self.engine.predict(inputs.images_MCHW, inputs.columns_MF).probabilities_NK)
        return np.concatenate(batches)

    def predict(
        self,
        images: "Sequence[ImageInput | None]",
        *,
        columns: Sequence[Row | None] | None = None,
        k: int = 5,
        maps: str | None = None,
    ) -> list[Prediction]:
        """Predict each image, in order, with its k most likely classes.

        columns: of a model to which columns of a table belong (data.columns), their values beside each image, by name.
        Any may be missing, and so may an image (None). maps: draw heatmaps by this method: grad_cam,
        integrated_gradients or occlusion. DataError names the first image that cannot be read, or value that is none of
        its column's kind; predict_files goes on after one.

        >>> [prediction] = model.predict([image])
        >>> prediction.class_name, len(prediction.top)
        ('red', 3)
        """
        if isinstance(images, str | bytes | Path | np.ndarray):
            raise DataError("predict takes a list of images: for a single one, write model.predict([image])")
        predictions: list[Prediction] = []
        for inputs in self._read_all(images, columns):
            for fields in self._predict(inputs, k, maps):
                image = images[len(predictions)]
                predictions.append(Prediction(Path(image) if isinstance(image, str | Path) else None, **fields))
        return predictions

    def predict_files(
        self, paths: Iterable[str | Path], *, k: int = 5, maps: str | None = None
    ) -> Iterator[Prediction | Unreadable]:
        """Predict each file, in order, as `predict`; an unreadable one does not stop the others.

        Each is read once, and only a few batches are in memory, however many paths there are.
        """
        return self.predict_named(((Path(path), Path(path), None) for path in paths), k=k, maps=maps)

    def predict_named(
        self,
        images: "Iterable[tuple[Path | str, ImageInput | None, Row | None]]",
        *,
        k: int = 5,
        maps: str | None = None,
    ) -> Iterator[Prediction | Unreadable]:
        """`predict_files` of images in any form, each with its name, which becomes the prediction's path, and row."""
        images, remaining = itertools.tee(images)
        pairs = ((image, row) for _, image, row in images)
        for inputs in self.inputs.read_batches(pairs, self.engine.batch_size):
            predictions = self._predict(inputs, k, maps)
            for n, (name, *_) in zip(range(inputs.count), remaining, strict=False):
                if error := inputs.errors.get(n):
                    yield Unreadable(name, f"{name}: {error}" if isinstance(error, RowError) else str(error))
                else:
                    yield Prediction(name, **next(predictions))

    def judge(self, images_NCHW: np.ndarray, columns_NF: np.ndarray | None = None) -> Judgement:
        """Judge a batch of uint8 images of the model's size and channels, as `predict` does.

        columns_NF: as ColumnSchema encodes them; without them all are missing.
        """
        probabilities_NK, statistics = self.engine.predict(images_NCHW, columns_NF)
        ood_scores_N, statistics_NF, is_ood_N = None, None, np.zeros(len(images_NCHW), bool)
        if self.ood_detector:
            ood_scores_N = self.ood_detector.score(statistics)
            statistics_NF = statistics[self.ood_detector.layers[-1]]
            if columns_NF is not None:  # a missing image is not strange
                ood_scores_N = np.where(columns_NF[:, IMAGE] > 0, ood_scores_N, np.float32(np.nan))
            is_ood_N = ood_scores_N > self.ood_detector.threshold
        decisions_N, in_set_NK, said_NK = self.decide(probabilities_NK)
        return Judgement(probabilities_NK, decisions_N, in_set_NK, ood_scores_N, is_ood_N, statistics_NF, said_NK)

    def decide(self, probabilities_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return decisions_N, in_set_NK and said_NK of a Judgement, by the calibration."""
        calibration = self.calibration
        if self.task == "multilabel":
            said_NK = in_set_NK = probabilities_NK >= DEFAULT_THRESHOLD
            if calibration:
                said_NK = calibration.decide_labels(probabilities_NK)
                in_set_NK = calibration.label_sets(probabilities_NK)
            decisions_N = np.where(said_NK.any(1), np.where(said_NK, probabilities_NK, -1).argmax(1), -1)
            return decisions_N, in_set_NK, said_NK
        if calibration:
            decisions_N = calibration.decide(probabilities_NK, self.hierarchy)
            return decisions_N, calibration.prediction_sets(probabilities_NK), None
        decisions_N = probabilities_NK.argmax(1)
        return decisions_N, decisions_N[:, None] == np.arange(len(self.class_names)), None

    def top(self, probabilities_K: np.ndarray, k: int = 5) -> tuple[tuple[str, float], ...]:
        """The k most likely classes and their probabilities, in descending order; ties go to the lower class.

        ConfigError if k is not positive.
        """
        _check_count(k)
        shares = probabilities_K.tolist()
        best = heapq.nlargest(k, range(len(shares)), key=shares.__getitem__)
        return tuple((self.class_names[c], shares[c]) for c in best)

    def _predict(self, inputs: Inputs, k: int, maps: str | None) -> Iterator[dict[str, Any]]:
        """The fields of each image's Prediction, except its path. ConfigError if k is not positive."""
        _check_count(k)
        if not len(inputs.images_MCHW):
            return
        judgement = self.judge(inputs.images_MCHW, inputs.columns_MF)
        classes_N = judgement.probabilities_NK.argmax(1)
        heatmaps = itertools.repeat(None)
        if maps:
            heatmaps = self.draw_heatmaps(inputs.images_MCHW, classes_N, maps, inputs.columns_MF)
        for prediction, heatmap in zip(self.to_predictions(judgement, k), heatmaps, strict=False):
            yield prediction | {"heatmap": heatmap}

    def to_predictions(self, judgement: Judgement, k: int) -> Iterator[dict[str, Any]]:
        """The fields of the Prediction of each image that was judged, except its path and heatmap."""
        decisions_N, said_NK = judgement.decisions_N, judgement.said_NK
        for n, probabilities_K in enumerate(judgement.probabilities_NK):
            ranked = self.top(probabilities_K, k)
            yield {
                "class_name": ranked[0][0],
                "probability": ranked[0][1],
                "top": ranked,
                "probabilities": probabilities_K,
                "decision": self.answer_names[int(decisions_N[n])] if decisions_N[n] >= 0 else None,
                "prediction_set": self.name(judgement.in_set_NK[n], probabilities_K),
                "is_out_of_distribution": bool(judgement.is_ood_N[n]),
                "labels": None if said_NK is None else self.name(said_NK[n], probabilities_K),
                "levels": self.hierarchy.find_best(probabilities_K) if self.hierarchy else (),
            }

    def name(self, is_in_K: np.ndarray, probabilities_K: np.ndarray) -> tuple[str, ...]:
        """Return the names of some classes, the most likely first; ties go to the lower class."""
        classes = np.flatnonzero(is_in_K)
        return tuple(self.class_names[c] for c in classes[np.argsort(-probabilities_K[classes], kind="stable")])

    def explain_missing_heatmaps(self) -> str | None:
        """Return why heatmaps cannot be drawn, where they cannot: they need torch, and the weights beside an export."""
        if not has_torch():
            return "torch is not installed"
        return None if (document.find(self.path) / document.WEIGHTS).is_file() else "the bundle has no weights"

    def draw_heatmaps(
        self,
        batch: Sequence[np.ndarray] | np.ndarray,
        classes_N: np.ndarray,
        method: str,
        columns_NF: np.ndarray | None = None,
    ) -> Iterator[bytes | None]:
        """A JPEG for each image, with the evidence for its class in orange; None for a missing image.

        ConfigError if there is no such method.
        """
        if method not in HEATMAPS:
            raise ConfigError(f"there are no heatmaps by {method}: choose one of {', '.join(HEATMAPS)}")
        import torch

        from classifier.inference import explain
        from classifier.inference.with_columns import WithColumns

        draw, images_NCHW = getattr(explain, method), torch.from_numpy(np.stack([*batch]))
        if columns_NF is None:
            maps_NHW = draw(self.model, self.scorer, images_NCHW, torch.from_numpy(classes_N))
            return (explain.overlay_heatmap(*pair) for pair in zip(images_NCHW, maps_NHW, strict=True))

        def draw_each() -> Iterator[bytes | None]:
            for n, columns_F in enumerate(torch.from_numpy(columns_NF)):
                if columns_F[IMAGE] == 0:
                    yield None
                    continue
                model, own = WithColumns(self.model, columns_F), slice(n, n + 1)
                [map_HW] = draw(model, self.scorer, images_NCHW[own], torch.from_numpy(classes_N[own]))
                yield explain.overlay_heatmap(images_NCHW[n], map_HW)

        return draw_each()

    def _read_all(
        self, images: "Sequence[ImageInput | None]", columns: Sequence[Row | None] | None
    ) -> Iterator[Inputs]:
        """Yield batches without errors: the first one is raised."""
        if columns is not None and len(columns) != len(images):
            raise DataError(f"there are {len(columns):,} rows of columns for {len(images):,} images: give one for each")
        rows = itertools.repeat(None, len(images)) if columns is None else columns
        for inputs in self.inputs.read_batches(zip(images, rows, strict=True), self.engine.batch_size):
            if inputs.errors:
                raise inputs.errors[min(inputs.errors)]
            yield inputs


def _check_count(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k is {k}: it must be at least 1")
