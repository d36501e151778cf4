"""The scheme by which a graph is quantised: the simplest that loses little enough, or else that loses least."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from classifier.bundle.engine import Engine
from classifier.compress.graph_engine import GraphEngine
from classifier.compress.judge import Assessment
from classifier.compress.quantize import SCHEMES, Scheme, choose_images, prepare, quantize
from classifier.compress.timing import measure_milliseconds
from classifier.data.images.arrays import Images
from classifier.errors import RunError

# Schemes that are tried in any case.
TRIED = 2
# A graph that is not faster by this factor is refused: it is noise.
MIN_SPEED = 1.02
# Layers that stay in float, in turns, where all in int8 lose too much; images that their sensitivity is measured on.
MOST_SENSITIVE, SENSITIVITY_IMAGES = (1, 2, 4, 8), 64


def find_scheme(
    source: Path,
    target: Path,
    before: Engine,
    images_NCHW: Images,
    *,
    threads: int,
    limit: float,
    judge: Callable[[Engine, Scheme], Assessment],
) -> tuple[Scheme, Assessment]:
    """Write a graph in int8, and return its scheme, and what its model answers.

    before: the graph in fp32. images_NCHW: of the training split. limit: of the loss, as a fraction. RunError if it
    cannot be quantised, or is slower in int8 on this machine.
    """
    prepared, trial = target.with_name("prepared.onnx"), target.with_name("trial.onnx")
    sample_NCHW = choose_images(images_NCHW)
    layers = prepare(source, prepared)
    best: tuple[Scheme, Assessment] | None = None
    for number, scheme in enumerate(_list_schemes(prepared, layers, before, images_NCHW, threads)):
        quantize(prepared, trial, sample_NCHW, scheme)
        engine = GraphEngine(trial, threads)
        if number == 0:
            _check_faster(before, engine, sample_NCHW)
        assessment = judge(engine, scheme)
        if best is None or _rank(assessment, limit) < _rank(best[1], limit):
            best = scheme, assessment
            trial.replace(target)
        if number + 1 >= TRIED and best[1].loss.is_within(limit):
            break
    assert best is not None
    return best


def _rank(assessment: Assessment, limit: float) -> tuple[bool, float]:
    """Return what is lower for a better scheme: one whose whole interval is within the limit comes first."""
    return not assessment.loss.is_within(limit), assessment.loss.mean


def _check_faster(before: Engine, after: Engine, images_NCHW: np.ndarray) -> None:
    timings = measure_milliseconds({"before": before, "after": after}, images_NCHW, 1)
    if timings["after"] * MIN_SPEED >= timings["before"]:
        raise RunError(
            f"{timings['after']:.2f} ms an image, no faster than {timings['before']:.2f} ms in fp32 on this machine"
        )


def _list_schemes(prepared: Path, layers: int, before: Engine, images_NCHW: Images, threads: int) -> Iterator[Scheme]:
    """Yield schemes, the simplest first; then those that keep the most sensitive layers in float."""
    yield from SCHEMES
    ranked = _rank_layers(prepared, layers, before, choose_images(images_NCHW, SENSITIVITY_IMAGES), threads)
    for count in MOST_SENSITIVE:
        if count < layers:
            yield Scheme(excluded=tuple(ranked[:count]))


def _rank_layers(prepared: Path, layers: int, before: Engine, images_NCHW: np.ndarray, threads: int) -> list[int]:
    """Return the layers by how far answers move where only this one is in int8, the farthest first."""
    expected_NK = before.predict(images_NCHW).probabilities_NK
    path, errors = prepared.with_name("layer.onnx"), {}
    for layer in range(layers):
        scheme = Scheme(excluded=tuple(other for other in range(layers) if other != layer))
        quantize(prepared, path, images_NCHW, scheme)
        found_NK = GraphEngine(path, threads).predict(images_NCHW).probabilities_NK
        errors[layer] = float(np.abs(found_NK - expected_NK).mean())
    return sorted(range(layers), key=errors.__getitem__, reverse=True)
