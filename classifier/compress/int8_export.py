"""An int8 graph as the export of a bundle: calibrated again, with a detector of its own."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.document import OOD_TENSORS
from classifier.bundle.engine import Engine
from classifier.bundle.exported import TOLERANCES, Export, Parity
from classifier.bundle.onnx_engine import GRAPH
from classifier.bundle.schema import CalibrationDocument
from classifier.compress.graph_engine import GraphEngine
from classifier.compress.graph_rewrites import soften
from classifier.data.dataset import Dataset
from classifier.data.images.arrays import Images
from classifier.evaluation.calibrate import select_typical
from classifier.export.folder import GateImages, write_export
from classifier.export.parity import BATCHES, compare, predict_in_batches
from classifier.inference.out_of_distribution import fit_to_statistics, sample_images
from classifier.metrics.calibration import calibrate
from classifier.storage.atomic import write_tensors


def export_int8(
    folder: Path,
    graph: Path,
    before: Engine,
    dataset: Dataset,
    *,
    judged: tuple[np.ndarray, Tensor],
    threads: int,
    targets: Mapping[str, Any],
) -> Export:
    """Put a graph in int8 into the bundle in `folder`, in place of its export in fp32.

    before: the export in fp32. judged: probabilities_NK by the graph, and labels_N, to calibrate it on. targets: of the
    calibration (metrics.calibration.calibrate). Of several labels an image it keeps the thresholds by which it was
    judged. RunError if the graph does not give the same answers where it is loaded.
    """
    loaded, gate = bundles.load(folder), GateImages.select(dataset)
    engine = GraphEngine(graph, threads)
    calibration, own = None, 1.0
    if loaded.bundle.task != "multilabel":
        probabilities_NK, labels_N = judged
        fitted = calibrate(torch.from_numpy(probabilities_NK), labels_N, hierarchy=loaded.bundle.hierarchy, **targets)
        calibration, own = fitted.as_dict(), fitted.temperature
        shared = loaded.bundle.calibration
        calibration["temperature"] = own * (shared["temperature"] if shared else 1.0)
    typical, held_out = (_collect(engine, images) for images in select_typical(loaded.bundle, dataset))
    detector = fit_to_statistics(typical, held_out) if held_out else None
    expected = before.predict(gate.images_NCHW)

    def fill(part: Path) -> Mapping[str, Any]:
        soften(graph, part / GRAPH, own) if own != 1 else shutil.copyfile(graph, part / GRAPH)
        if detector:
            tensors = {name: torch.from_numpy(np.array(array)) for name, array in detector.arrays.items()}
            write_tensors(tensors, part / OOD_TENSORS, format="pt")
        return {}

    def check(written: Engine) -> Parity:
        difference = compare(expected, predict_in_batches(written, gate.images_NCHW), None, TOLERANCES["int8"])
        worst = int(difference.probabilities_N.argmax())
        return Parity(
            split=gate.split,
            images=len(gate.images_NCHW),
            batches=list(BATCHES),
            max_difference=float(difference.probabilities_N[worst]),
            farthest=gate.ids[worst % len(gate.ids)],
        )

    layers = list(engine.predict(gate.images_NCHW[:1]).statistics)
    return write_export(
        loaded,
        folder,
        "onnx",
        gate,
        layers=layers,
        fill=fill,
        check=check,
        precision="int8",
        calibration=cast("CalibrationDocument | None", calibration),
    )


def _collect(engine: Engine, images_NCHW: Images) -> dict[str, Tensor]:
    """Return the engine's stats_NF of each layer, for a sample of the images."""
    sample = sample_images(images_NCHW)
    answers = [
        engine.predict(np.asarray(sample[n : n + engine.batch_size])) for n in range(0, len(sample), engine.batch_size)
    ]
    layers = answers[0].statistics
    return {name: torch.from_numpy(np.concatenate([answer.statistics[name] for answer in answers])) for name in layers}
