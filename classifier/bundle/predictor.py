"""Ask a finished model: load a bundle once, then call it on pictures."""

from collections.abc import Iterator, Sequence
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
from classifier.errors import DataError
from classifier.inference import explain
from classifier.inference.out_of_distribution import OODDetector, capture_activations
from classifier.metrics.calibration import Calibration
from classifier.runtime.distributed import pick_device

if TYPE_CHECKING:
    from PIL.Image import Image


ImageInput: TypeAlias = "str | Path | bytes | Image | np.ndarray[Any, Any]"
"""A file, an encoded file's bytes, a Pillow image, or a uint8 array of H x W (grey) or H x W x 3 or 4."""

# Classes that a verdict names.
NAMED = 3
# Decoding leaves Python's lock alone, so a few threads help; more only wait for the disk.
DECODERS = 4


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a picture shows. `top` are the likeliest classes with their probabilities, the best first."""

    path: Path
    class_name: str
    probability: float
    top: tuple[tuple[str, float], ...]
    probabilities: Tensor
    """Of all K classes, float32, in the order of the model's class names."""
    decision: str | None
    """What it is taken for: class_name, unless the model is not sure, or a threshold prefers another class."""
    prediction_set: tuple[str, ...]
    """Classes of which one is right as often as the calibration says, the likeliest first."""
    is_out_of_distribution: bool
    """It is unlike the pictures that the model has learned from: no answer is to be trusted."""

    @property
    def describe(self) -> str:
        """The answer in a few words."""
        if self.is_out_of_distribution:
            return f"unlike anything seen in training ({self.class_name}?)"
        if self.decision is None:
            names = " or ".join(self.prediction_set[:NAMED]) + (
                " or others" if len(self.prediction_set) > NAMED else ""
            )
            return f"not sure: {names}"
        return self.decision


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read as a picture, and why, in one sentence."""

    path: Path
    reason: str


class Predictor:
    """A model from a run, search or bundle folder. It prepares pictures and answers as it was measured to.

    RunError or ModelError as bundle.load; ConfigError if there is no such device (auto, cpu, cuda, cuda:N, mps).
    """

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        self.bundle, self.model = bundle.load(path, pick_device(device))
        self.scorer = self.bundle.scorer(pick_device(device))
        self.spec = ImageSpec(
            self.bundle.size, self.bundle.channels, self.bundle.fit, self.bundle.experiment["data"]["max_pixels"]
        )
        known = self.bundle.calibration
        self.calibration = Calibration.from_dict(known) if known else None
        tensors = bundle.load_ood_tensors(path)
        self.ood_detector = OODDetector(tensors) if tensors else None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.bundle.class_names

    def __call__(self, pictures: Sequence[ImageInput]) -> Tensor:
        """probabilities_NK, float32 on the CPU. DataError names the first picture that cannot be read."""
        parts = [torch.zeros(0, len(self.class_names))]
        for images in self._prepared(pictures):
            broken = [image for image in images if isinstance(image, DataError)]
            if broken:
                raise broken[0]
            parts.append(self._answers(images))
        return torch.cat(parts)

    def predict_files(self, paths: Sequence[str | Path], *, k: int = 5) -> Iterator[Prediction | Unreadable]:
        """Answer file after file, in order, with the k likeliest classes; a broken file does not stop the others."""
        done = 0
        for images in self._prepared(paths):
            readable = [image for image in images if not isinstance(image, DataError)]
            rows = self._judged(readable, k)
            for image in images:
                path = Path(paths[done])
                done += 1
                if isinstance(image, DataError):
                    yield Unreadable(path, str(image))
                else:
                    yield Prediction(path, **next(rows))

    def heatmaps(self, answers: Sequence[Prediction], method: str) -> Iterator[bytes]:
        """A JPEG for each answered file, in which orange is where the model saw its answer.

        method: grad_cam, integrated_gradients or occlusion (explain.py).
        """
        places = {name: k for k, name in enumerate(self.class_names)}
        for start in range(0, len(answers), self.scorer.batch_size):
            some = answers[start : start + self.scorer.batch_size]
            images_NCHW = torch.stack([torch.from_numpy(np.array(self._prepare(answer.path))) for answer in some])
            classes_N = torch.tensor([places[answer.class_name] for answer in some])
            maps_NHW = getattr(explain, method)(self.model, self.scorer, images_NCHW, classes_N)
            yield from (explain.overlay_heatmap(*pair) for pair in zip(images_NCHW, maps_NHW, strict=True))

    def top(self, probabilities_K: Tensor, k: int = 5) -> tuple[tuple[str, float], ...]:
        """The k likeliest classes and their probabilities, best first; of equals the lower class comes first."""
        best = probabilities_K.argsort(descending=True, stable=True)[:k].tolist()
        return tuple((self.class_names[c], float(probabilities_K[c])) for c in best)

    def _answers(self, images: Sequence[Any]) -> Tensor:
        return self.scorer.predict_probabilities(self.model, torch.from_numpy(np.stack(images)))

    def _judged(self, images: Sequence[Any], k: int) -> Iterator[dict[str, Any]]:
        """What a Prediction says of each image, beside its path."""
        if not images:
            return
        layers = self.ood_detector.layers if self.ood_detector else []
        with capture_activations(self.model, layers, views=2 if self.scorer.test_flip else 1) as stats:
            probabilities_NK = self._answers(images)
        unlike_N = torch.zeros(len(images), dtype=torch.bool)
        if self.ood_detector:
            unlike_N = self.ood_detector.score_statistics(stats) > self.ood_detector.threshold
        best_N = probabilities_NK.argmax(1)
        taken_N = self.calibration.decide(probabilities_NK) if self.calibration else best_N
        in_NK = self.calibration.prediction_sets(probabilities_NK) if self.calibration else None
        for n, probabilities_K in enumerate(probabilities_NK):
            every = self.top(probabilities_K, len(self.class_names))
            likely = int(in_NK[n].sum()) if in_NK is not None else 1
            yield {
                "class_name": every[0][0],
                "probability": every[0][1],
                "top": every[:k],
                "probabilities": probabilities_K,
                "taken": self.class_names[int(taken_N[n])] if taken_N[n] >= 0 else None,
                "likely": tuple(name for name, _ in every[:likely]),
                "is_unlike": bool(unlike_N[n]),
            }

    def _prepared(self, pictures: Sequence[ImageInput]) -> Iterator[list[Any]]:
        """Batches of uint8 CHW arrays, with a DataError for what cannot be read; decodes one batch ahead."""
        batch = self.scorer.batch_size
        with ThreadPoolExecutor(DECODERS) as pool:
            ahead = pool.map(self._prepare, pictures[:batch])
            for start in range(batch, len(pictures) + batch, batch):
                ready, ahead = ahead, pool.map(self._prepare, pictures[start : start + batch])
                yield list(ready)

    def _prepare(self, picture: ImageInput) -> Any:
        try:
            if isinstance(picture, str | Path | bytes):
                source = picture if isinstance(picture, bytes) else Path(picture)
                return decode.load(source, self.spec)
            if isinstance(picture, np.ndarray):
                picture = _from_array(picture)
            return decode.prepare(picture, self.spec)
        except DataError as error:
            return error


def _from_array(pixels: np.ndarray[Any, Any]) -> "Image":
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DataError(
            f"an array of {pixels.dtype} and shape {pixels.shape} is no picture: give uint8, H x W or H x W x 1, 3 or 4"
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files given, and the image files in the folders given, at any depth and in the order of their names.

    DataError names a path that does not exist, or a folder without pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if decode.is_image_path(p))
            if not inside:
                raise DataError(f"{path} holds no pictures ({', '.join(sorted(decode.SUFFIXES))}): give another folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: give picture files or folders of them")
    return found
