"""The result of a compression: the bundle of its fastest accepted model, with the export that was measured."""

import dataclasses
from pathlib import Path

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.bundle.engine_choice import open_engine
from classifier.compress.int8_export import export_int8
from classifier.compress.measurements import ORIGINAL, Measurements
from classifier.compress.table import Row
from classifier.compress.train_step import read_targets
from classifier.evaluation.reference import collect_reference_by_engine
from classifier.export.folder import GateImages, export_bundle


def save_winner(models: Measurements, row: Row, folder: Path) -> LoadedBundle:
    """Save the row's model in `folder`, exported as it was measured; return it. RunError if it cannot be exported.

    Test scores are not taken over: they are those of another model, or of other arithmetic.
    """
    source = models.bundle_folder(row["step"])
    loaded = bundles.load(source)
    bundle = loaded.bundle
    if row["step"] != ORIGINAL or row["precision"] == "int8":
        bundle = dataclasses.replace(bundle, scores=bundle.scores | {"test": None})
    # Answers in int8 have a reference of their own.
    reference = None if row["precision"] == "int8" else bundles.load_reference(source)
    bundles.save(bundle, loaded.model, folder, bundles.load_ood_detector(source), reference)
    export_bundle(folder, "onnx", GateImages.select(models.dataset))
    if row["precision"] == "int8":
        export_int8(
            folder,
            models.graph(row["step"], "int8"),
            models.engines[row["step"]],
            models.dataset,
            judged=(models.load_int8_answers(row["step"]), models.judge.split.labels_N),
            threads=models.document["threads"],
            targets=read_targets(bundle),
        )
        opened = open_engine(folder, "onnx", "cpu", None, lambda: loaded)
        if reference := collect_reference_by_engine(opened.engine, opened.detector, models.dataset):
            bundles.update_reference(folder, reference)
    return LoadedBundle(bundle, loaded.model)
