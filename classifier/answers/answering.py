"""Answers to a part of the images: decoded ahead, in threads, while the engine computes."""

import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from classifier.answers.listing import ListedImage, Part
from classifier.answers.rows import Answers, Columns, write_answers
from classifier.answers.store import AnswerStore, PartDocument
from classifier.bundle import document
from classifier.bundle.inputs.input_reader import Inputs
from classifier.bundle.predictor import Judgement, Predictor
from classifier.data.decoding.decode import DecodeFailure
from classifier.errors import DataError

BATCHES_AHEAD = 2
"""Batches that are decoded before they are needed."""


def answer_part(
    predictor: Predictor, store: AnswerStore, part: Part, advance: Callable[[int], object] = lambda _: None
) -> PartDocument:
    """Answer the images of a part, and put the answers in place. RunError if they cannot be written.

    The same images are in the same batches wherever and whenever a part is answered: so are the answers, on the same
    engine.
    """
    settings = store.settings
    columns = Columns(settings["top"], settings["probabilities"], settings["features"])
    answers = answer_images(predictor, part.images, columns, advance)
    return store.commit(part, len(answers.errors), lambda path: write_answers(answers, path, settings["format"]))


def answer_images(
    predictor: Predictor,
    images: Sequence[ListedImage],
    columns: Columns,
    advance: Callable[[int], object] = lambda _: None,
) -> Answers:
    """Answer images, at least one. advance: is advanced the number of each batch's images."""
    answers = []
    for batch, inputs in _read_ahead(predictor, images):
        errors = {n: str(error) for n, error in inputs.errors.items()}
        judgement, features_MF = _judge(predictor, inputs, with_features=columns.features)
        ids = [image.id for image in batch]
        answers.append(Answers(predictor.class_names, columns, ids, errors, judgement, features_MF))
        advance(len(batch))
    return Answers.join(answers)


def _read_ahead(predictor: Predictor, images: Sequence[ListedImage]) -> Iterator[tuple[Sequence[ListedImage], Inputs]]:
    size = predictor.engine.batch_size
    batches = (images[start : start + size] for start in range(0, len(images), size))
    with ThreadPoolExecutor(1) as pool:
        ready: deque[tuple[Sequence[ListedImage], Future[Inputs]]] = deque()
        for batch in itertools.chain(batches, [None] * BATCHES_AHEAD):
            if batch is not None:
                ready.append((batch, pool.submit(_read, predictor, batch)))
            if ready and (batch is None or len(ready) > BATCHES_AHEAD):
                first, future = ready.popleft()
                yield first, future.result()


def _read(predictor: Predictor, images: Sequence[ListedImage]) -> Inputs:
    files = {n: image.file for n, image in enumerate(images) if image.file is not None}
    pixels: list[np.ndarray | DataError | None] = [None] * len(images)
    for n, one in zip(files, predictor.images.decode_files([*files.values()]), strict=True):
        pixels[n] = DataError(one.reason) if isinstance(one, DecodeFailure) else one
    return Inputs.gather(predictor.bundle.columns, predictor.spec.shape, pixels, [image.row for image in images])


def _judge(predictor: Predictor, inputs: Inputs, *, with_features: bool) -> tuple[Judgement, np.ndarray | None]:
    if not len(inputs.images_MCHW):
        return Judgement.empty(len(predictor.class_names), predictor.task), None
    if not with_features:
        return predictor.judge(inputs.images_MCHW, inputs.columns_MF), None
    from classifier.inference.features import capture_features

    with capture_features(predictor.model) as captured:
        judgement = predictor.judge(inputs.images_MCHW, inputs.columns_MF)
    return judgement, captured[0].cpu().numpy()  # of the first view


def describe_model(predictor: Predictor) -> tuple[str, str]:
    """Return what decides the answers of a model, as a checksum, and what computes them, in words."""
    bundle, folder = predictor.bundle, document.find(predictor.path)
    files = document.read_document(folder)["files"]
    about: dict[str, Any] = {name: value["sha256"] for name, value in files.items() if name != document.REFERENCE}
    for name in ("model", "class_names", "channels", "size", "fit", "mean", "std", "test_flip"):
        about[name] = getattr(bundle, name)
    if bundle.columns:
        about["columns"] = bundle.columns.as_dict()
    about["calibration"] = predictor.calibration and predictor.calibration.as_dict()
    model = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
    return model, predictor.engine.description
