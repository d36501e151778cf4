"""The reference of a bundle: the one that it holds, or, in one of an earlier version, collected from the run's data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classifier.bundle import bundle as bundles
from classifier.errors import ClassifierError, RunError
from classifier.evaluation.calibrate import is_validated_by_folds
from classifier.evaluation.reference import collect_reference
from classifier.evaluation.test_split import count_test_read
from classifier.evaluation.training_data import load_training_data
from classifier.inference.reference import Reference
from classifier.runtime.distributed import pick_device
from classifier.text import quote


def open_reference(
    path: str | Path,
    device: str = "auto",
    data_path: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Reference, list[str]]:
    """Return the reference of the bundle at `path`, and notes on it.

    data_path, settings: where the data set is, and how it may be read, as of load_training_data, for a bundle that
    holds no reference. RunError, with the command that makes one, if neither is at hand.
    """
    if (stored := bundles.load_reference(path)) is not None:
        return stored, []
    bundle, fix = bundles.read(path), f"classifier calibrate {quote(str(path))}, where the data set is, makes one"
    if is_validated_by_folds(bundle):
        raise RunError(f"{path} holds no reference for drift: {fix}")
    try:
        dataset = load_training_data(path, bundle, data_path, settings)
    except ClassifierError as error:
        raise RunError(f"{path} holds no reference for drift, and its data cannot be read ({error}): {fix}") from None
    loaded = bundles.load(path, pick_device(device))
    split = "validation" if bundle.scores["validation"] is not None and len(dataset.validation) else "test"
    part = getattr(dataset, split)
    if not len(part):
        raise RunError(f"{path} has neither validation nor test images: there is nothing to compare with")
    if split == "test":
        count_test_read(path, "drift")
    _, outputs_NK = loaded.scorer().predict_split(loaded.model, part, dataset.label_sets_MK)
    reference = collect_reference(loaded, dataset, split, bundles.load_ood_detector(path), outputs_NK)
    return reference, [f"the model holds no reference, which was computed from its {split} images: {fix}"]
