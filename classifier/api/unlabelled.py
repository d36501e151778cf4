"""What unlabelled images brought: the model against one of the same labels alone, on the same held-out images."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.inference.features import load_features
from classifier.inference.logistic_regression import HeldOut
from classifier.inference.scorer import find_hits
from classifier.metrics.intervals import paired_difference_interval
from classifier.runs.folder import RunFolder
from classifier.runs.schema import UnlabelledGain
from classifier.runtime.distributed import pick_device
from classifier.storage.atomic import write_tensors
from classifier.training import head_probe
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit

GAIN = "what the unlabelled images brought"
# The training by the labels alone is done unasked if it takes at most this share of the time of the other: it passes
# no unlabelled images, of which each costs a forward pass and a step.
MAX_SHARE, PASS_COST = 0.35, 4 / 3
# Its checkpoints, until it is over, and which images its best model has right.
FOLDER, HITS = "labels_alone", "hits.safetensors"


def measure_unlabelled(
    run: RunFolder, experiment: Experiment, dataset: Dataset, should_stop: Callable[[], bool] = lambda: False
) -> UnlabelledGain | None:
    """Compare the run's model with the same training by the labels alone, with the same seed and steps.

    A linear probe by folds of the training images, where it had no others; else on the validation images. None if there
    are no unlabelled images, if none were held out, if that training takes too long or was stopped. It goes on where it
    was stopped.
    """
    if dataset.unlabelled is None or experiment.semi.weight == 0:
        return None
    if not experiment.takes_steps:
        return _compare_probes(run, experiment, dataset)
    if explain_unmeasured(experiment, dataset):
        return None
    alone_M = _train_alone(run.folder / FOLDER, experiment, dataset, should_stop)
    if alone_M is None:
        return None
    hits_M = _find_hits(bundles.load(run.folder, pick_device(experiment.train.device)), dataset)
    return _describe(experiment.semi.method, "validation", len(dataset.unlabelled), hits_M, alone_M, is_used=True)


def explain_unmeasured(experiment: Experiment, dataset: Dataset) -> str:
    """Say why a training in steps is not compared with the labels alone, and what to do; "" if it is."""
    if dataset.unlabelled is None or experiment.semi.weight == 0 or not experiment.takes_steps:
        return ""
    if not len(dataset.validation):
        return "without validation images nothing tells what the unlabelled images brought: compare on test images"
    share = 1 / (1 + PASS_COST * experiment.semi.ratio * (1 - experiment.semi.start))
    if share > MAX_SHARE:
        return f"a training by the labels alone would take {share:.0%} of the time of this one: --semi.weight 0 is one"
    return ""


def _compare_probes(run: RunFolder, experiment: Experiment, dataset: Dataset) -> UnlabelledGain | None:
    loaded = bundles.load(run.folder, pick_device(experiment.train.device))
    parts = (loaded.model, experiment, dataset, loaded.scorer())
    unlabelled_MF = head_probe.compute_unlabelled(*parts, run.feature_folder)
    assert unlabelled_MF is not None
    features_NF = head_probe.compute_features(*parts, folder=run.feature_folder)
    found = head_probe.fit_propagated(features_NF, dataset, experiment.loss.adjustment, unlabelled_MF)
    if found.alone is None or found.propagated is None:
        return None
    answers: tuple[HeldOut, HeldOut] = (found.propagated, found.alone)
    hits_M, alone_M = (one.hits for one in answers)
    return _describe("propagation", "folds", len(unlabelled_MF), hits_M, alone_M, is_used=found.is_kept)


def _train_alone(
    folder: Path, experiment: Experiment, dataset: Dataset, should_stop: Callable[[], bool]
) -> Tensor | None:
    """Return is_hit_M of the validation images by a training on the labels alone; None if it was stopped."""
    alone = experiment.override("semi.weight", 0.0)
    folder.mkdir(exist_ok=True)
    path, store = folder / HITS, CheckpointStore(folder)
    for epoch in fit(alone, dataset, store=store, should_stop=should_stop):
        if epoch.stopped == "asked":
            return None
        if epoch.is_best:
            about = bundles.Bundle.from_training(alone, dataset, scores={}, epoch=epoch.number)
            write_tensors({"hits": _find_hits(LoadedBundle(about, epoch.model), dataset)}, path)
        epoch.commit()
    found = load_features(path)
    shutil.rmtree(folder)
    return None if found is None else found["hits"]


def _find_hits(loaded: LoadedBundle, dataset: Dataset) -> Tensor:
    _, probabilities_MK = loaded.scorer().predict_split(loaded.model, dataset.validation, dataset.label_sets_MK)
    return find_hits(probabilities_MK, dataset.validation.labels_N.to(probabilities_MK.device)).cpu()


def _describe(method: str, by: str, images: int, hits_M: Tensor, alone_M: Tensor, *, is_used: bool) -> UnlabelledGain:
    count, won, lost = len(hits_M), int((hits_M & ~alone_M).sum()), int((alone_M & ~hits_M).sum())
    low, high = paired_difference_interval(lost, won, count)
    document: dict[str, Any] = {
        "method": method,
        "images": images,
        "by": by,
        "judged": count,
        "accuracy": int(hits_M.sum()) / count,
        "alone": int(alone_M.sum()) / count,
        "interval": [low, high],
        "used": is_used,
    }
    return UnlabelledGain(**document)
