"""Predict with a trained model: load a bundle once, then call it on images."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from classifier.bundle import bundle
from classifier.data.decoding import decode
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import ConfigError, DataError
from classifier.inference import explain
from classifier.inference.out_of_distribution import OODDetector, capture_activations
from classifier.metrics.calibration import Calibration
from classifier.runtime.distributed import pick_device

if TYPE_CHECKING:
    from PIL.Image import Image


ImageInput: TypeAlias = "str | Path | bytes | Image | np.ndarray[Any, Any]"
"""A file, an encoded file's bytes, a Pillow image, or a uint8 array of H x W (grey) or H x W x 3 or 4."""

# Methods of explain.py.
HEATMAPS = ("grad_cam", "integrated_gradients", "occlusion")
# Classes named in the description of an uncertain prediction.
MAX_NAMED_CLASSES = 3
# Decoding releases the GIL, so a few threads help; more only wait for the disk.
DECODE_THREADS = 4


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for an image. `top`: the most likely classes with their probabilities, in descending order."""

    path: Path | None
    """The image's file; None for an image in memory."""
    class_name: str
    probability: float
    top: tuple[tuple[str, float], ...]
    probabilities: Tensor
    """probabilities_K of all classes, float32, in the order of the model's class names."""
    decision: str | None
    """class_name, or another class by the calibrated thresholds; None if the model is not sure."""
    prediction_set: tuple[str, ...]
    """Classes that contain the right one with the calibrated coverage, the most likely first."""
    is_out_of_distribution: bool
    """The image is unlike the training images: do not trust the prediction."""
    heatmap: bytes | None = None
    """A JPEG with the evidence for class_name in orange, if it was asked for."""

    def __repr__(self) -> str:
        return f"<{f'{self.path}: ' if self.path else ''}{self.describe()}, {self.class_name} {self.probability:.1%}>"

    def describe(self) -> str:
        """Return the prediction in a few words."""
        if self.is_out_of_distribution:
            return f"unlike anything seen in training ({self.class_name}?)"
        if self.decision is None:
            others = " or others" if len(self.prediction_set) > MAX_NAMED_CLASSES else ""
            return f"not sure: {' or '.join(self.prediction_set[:MAX_NAMED_CLASSES])}{others}"
        return self.decision


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read as an image, and why, in one sentence."""

    path: Path
    reason: str


class Predictor:
    """A model from a run, search or bundle folder, with the preprocessing and calibration it was evaluated with.

    RunError or ModelError as in bundle.load; ConfigError if there is no such device (auto, cpu, cuda, cuda:N, mps).
    """

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        self.loaded = bundle.load(path, pick_device(device))
        self.bundle, self.model = self.loaded
        self.scorer = self.bundle.scorer(pick_device(device))
        self.spec = ImageSpec(
            self.bundle.size, self.bundle.channels, self.bundle.fit, self.bundle.experiment["data"]["max_pixels"]
        )
        calibration = self.bundle.calibration
        self.calibration = Calibration.from_dict(calibration) if calibration else None
        tensors = bundle.load_ood_tensors(path)
        self.ood_detector = OODDetector(tensors) if tensors else None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.bundle.class_names

    def __call__(self, images: Sequence[ImageInput]) -> Tensor:
        """probabilities_NK, float32 on the CPU. DataError names the first image that cannot be read."""
        batches = [torch.zeros(0, len(self.class_names))]
        for batch in self._decode_batches(images):
            errors = [pixels for pixels in batch if isinstance(pixels, DataError)]
            if errors:
                raise errors[0]
            batches.append(self._predict_probabilities(batch))
        return torch.cat(batches)

    def predict(self, images: Sequence[ImageInput], *, k: int = 5, maps: str | None = None) -> list[Prediction]:
        """Predict each image, in order, with its k most likely classes.

        maps: draw heatmaps by this method: grad_cam, integrated_gradients or occlusion. DataError names the first image
        that cannot be read; predict_files goes on after one.

        >>> [prediction] = model.predict([image])
        >>> prediction.class_name, len(prediction.top)
        ('red', 3)
        """
        if isinstance(images, str | bytes | Path | np.ndarray):
            raise DataError("predict takes a list of images: for a single one, write model.predict([image])")
        predictions: list[Prediction] = []
        for batch in self._decode_batches(images):
            errors = [pixels for pixels in batch if isinstance(pixels, DataError)]
            if errors:
                raise errors[0]
            for fields in self._predict(batch, k, maps):
                image = images[len(predictions)]
                predictions.append(Prediction(Path(image) if isinstance(image, str | Path) else None, **fields))
        return predictions

    def predict_files(
        self, paths: Iterable[str | Path], *, k: int = 5, maps: str | None = None
    ) -> Iterator[Prediction | Unreadable]:
        """Predict each file, in order, as `predict`; an unreadable one does not stop the others.

        Each is read once, and only a few batches are in memory, however many paths there are.
        """
        paths, remaining_paths = itertools.tee(map(Path, paths))
        for batch in self._decode_batches(paths):
            predictions = self._predict([pixels for pixels in batch if not isinstance(pixels, DataError)], k, maps)
            for pixels, path in zip(batch, remaining_paths, strict=False):
                if isinstance(pixels, DataError):
                    yield Unreadable(path, str(pixels))
                else:
                    yield Prediction(path, **next(predictions))

    def top(self, probabilities_K: Tensor, k: int = 5) -> tuple[tuple[str, float], ...]:
        """The k most likely classes and their probabilities, in descending order; ties go to the lower class."""
        best = probabilities_K.argsort(descending=True, stable=True)[:k].tolist()
        return tuple((self.class_names[c], float(probabilities_K[c])) for c in best)

    def _predict_probabilities(self, batch: Sequence[Any]) -> Tensor:
        return self.scorer.predict_probabilities(self.model, torch.from_numpy(np.stack(batch)))

    def _predict(self, batch: Sequence[Any], k: int, maps: str | None) -> Iterator[dict[str, Any]]:
        """The fields of each image's Prediction, except its path."""
        if not batch:
            return
        layers = self.ood_detector.layers if self.ood_detector else []
        with capture_activations(self.model, layers, views=2 if self.scorer.test_flip else 1) as stats:
            probabilities_NK = self._predict_probabilities(batch)
        is_ood_N = torch.zeros(len(batch), dtype=torch.bool)
        if self.ood_detector:
            is_ood_N = self.ood_detector.score_statistics(stats) > self.ood_detector.threshold
        best_N = probabilities_NK.argmax(1)
        decisions_N = self.calibration.decide(probabilities_NK) if self.calibration else best_N
        in_set_NK = self.calibration.prediction_sets(probabilities_NK) if self.calibration else None
        heatmaps = self._draw_heatmaps(batch, best_N, maps) if maps else itertools.repeat(None)
        for n, (probabilities_K, heatmap) in enumerate(zip(probabilities_NK, heatmaps, strict=False)):
            ranked = self.top(probabilities_K, len(self.class_names))
            set_size = int(in_set_NK[n].sum()) if in_set_NK is not None else 1
            yield {
                "class_name": ranked[0][0],
                "probability": ranked[0][1],
                "top": ranked[:k],
                "probabilities": probabilities_K,
                "decision": self.class_names[int(decisions_N[n])] if decisions_N[n] >= 0 else None,
                "prediction_set": tuple(name for name, _ in ranked[:set_size]),
                "is_out_of_distribution": bool(is_ood_N[n]),
                "heatmap": heatmap,
            }

    def _draw_heatmaps(self, batch: Sequence[Any], classes_N: Tensor, method: str) -> Iterator[bytes]:
        """A JPEG for each image, with the evidence for its class in orange. ConfigError if there is no such method."""
        if method not in HEATMAPS:
            raise ConfigError(f"there are no heatmaps by {method}: choose one of {', '.join(HEATMAPS)}")
        images_NCHW = torch.from_numpy(np.stack(batch))
        maps_NHW = getattr(explain, method)(self.model, self.scorer, images_NCHW, classes_N)
        return (explain.overlay_heatmap(*pair) for pair in zip(images_NCHW, maps_NHW, strict=True))

    def _decode_batches(self, images: Iterable[ImageInput]) -> Iterator[list[Any]]:
        """Batches of uint8 CHW arrays, with a DataError for what cannot be read; decodes one batch ahead."""
        remaining = iter(images)
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            ready: Iterator[Any] = iter(())
            while batch := list(itertools.islice(remaining, self.scorer.batch_size)):
                following = pool.map(self._decode, batch)
                if pixels := list(ready):
                    yield pixels
                ready = following
            if pixels := list(ready):
                yield pixels

    def _decode(self, image: ImageInput) -> Any:
        try:
            if isinstance(image, str | Path | bytes):
                source = image if isinstance(image, bytes) else Path(image)
                return decode.load(source, self.spec)
            if isinstance(image, np.ndarray):
                image = _from_array(image)
            return decode.prepare(image, self.spec)
        except DataError as error:
            return error


def _from_array(pixels: np.ndarray[Any, Any]) -> "Image":
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DataError(
            f"an array of {pixels.dtype} and shape {pixels.shape} is not an image: pass uint8 of H x W or H x W x 1, 3 "
            "or 4"
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """List the given files, and the image files at any depth in the given folders, sorted by path.

    DataError names a path that does not exist, or a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if decode.is_image_path(p))
            if not inside:
                raise DataError(
                    f"{path} contains no images ({', '.join(sorted(decode.SUFFIXES))}): give another folder"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: give image files or folders of them")
    return found
