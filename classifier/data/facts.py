"""Facts about a data set, from its files: enough to choose a recipe, before anything is decoded for training."""

import dataclasses

import numpy as np

from classifier.config.auto_recipe import Facts
from classifier.config.sections import DataConfig
from classifier.data.build import choose_task
from classifier.data.infer_shape import measure_sample
from classifier.data.readers.detect import open_source
from classifier.data.readers.source import guess_image_kind
from classifier.data.split_names import SPLITS, UNASSIGNED
from classifier.data.unlabelled.source import open_unlabelled
from classifier.errors import DataError


def measure_facts(config: DataConfig) -> Facts:
    """Measure the data set at config.path. DataError if there is nothing to learn from, or no image can be read."""
    source = open_source(config)
    task = choose_task(source, config)
    measured = measure_sample(source, dataclasses.replace(config, size=None))
    if not measured:
        raise DataError(f"{source.name}: none of the images that were tried can be read: replace them")
    has_split = {name: bool((source.splits_N == number).any()) for number, name in enumerate(SPLITS)}
    unassigned = {name: 0.0 if has_split[name] else getattr(config, name) for name in ("validation", "test")}
    labels_N = source.labels_N[np.isin(source.splits_N, (SPLITS.index("train"), UNASSIGNED))]
    count = divided = len(labels_N)
    imbalance = 1.0  # rare labels of several need no adjustment: each has a threshold of its own
    if source.label_sets is None:
        counts_K = np.bincount(labels_N)
        divided = int(counts_K[counts_K > 1].sum())  # a class of one image trains with it
        if task != "ordinal":  # grades share one latent value, which is not adjusted for single ones
            imbalance = float(counts_K.max() / counts_K[counts_K > 0].min())
    validation = int((source.splits_N == SPLITS.index("validation")).sum()) or round(divided * unassigned["validation"])
    return Facts(
        images=max(1, round(count - divided * sum(unassigned.values()))),
        validation=validation,
        unlabelled=0 if config.unlabelled is None else len(open_unlabelled(config).ids),
        columns=len(source.columns),
        imbalance=imbalance,
        classes=len(source.class_names),
        side=int(np.median([min(one.width, one.height) for one in measured])),
        is_symbols=(source.kind or guess_image_kind(source.class_names, task)) == "symbols",
    )
