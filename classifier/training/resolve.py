"""Fill in the settings that an experiment leaves open, from the data and the machine, never from timing.

The resolved experiment is saved and resumed, so that two runs of it agree.
"""

import dataclasses
from pathlib import Path

import torch

from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.config.sections import AugmentConfig, Task
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.models import factory
from classifier.runtime.distributed import pick_device
from classifier.training.semi.consistency import check_semi, count_repeats

# What may select the best epoch, by task: the first one, unless train.metric says otherwise.
METRICS: dict[Task, tuple[str, ...]] = {
    "multiclass": ("accuracy", "macro_f1", "loss"),
    "multilabel": ("map", "micro_f1", "macro_f1", "loss"),
    "ordinal": ("quadratic_kappa", "mean_absolute_error", "accuracy", "macro_f1", "loss"),
    "nested": ("accuracy", "macro_f1", "loss"),
}


def resolve(experiment: Experiment, dataset: Dataset) -> Experiment:
    """Set everything that decides the result: image size, channels, augmentation, device, precision, threads.

    Idempotent. ConfigError, ModelError or DataError if the experiment cannot run on this dataset or machine.
    """
    factory.check_name(experiment.model, Path(experiment.data.path))
    check_semi(experiment, dataset)
    count, batch = len(dataset.train), experiment.data.batch * experiment.optimizer.accumulate
    count *= count_repeats(experiment, dataset)
    if batch > count:
        largest = 2 ** max(0, count.bit_length() - 1)
        product = (
            f" x optimizer.accumulate {experiment.optimizer.accumulate}" if experiment.optimizer.accumulate > 1 else ""
        )
        raise ConfigError(
            f"data.batch {experiment.data.batch}{product} is more than the {count} training images of {dataset.name}: "
            f"use --data.batch {largest} or less"
        )
    needs_validation = (
        experiment.train.keep == "best" or experiment.train.patience or experiment.schedule.name == "plateau"
    )
    if len(dataset.validation) == 0 and needs_validation:
        raise DataError(
            f"{dataset.name} has no validation images: {dataset.how_to_fill('validation')}, or train without them: "
            "--train.keep last, no train.patience, and no plateau schedule"
        )
    _check_probe(experiment)
    _check_task(experiment, dataset.task)
    device = pick_device(experiment.train.device)
    augment = policy.resolve(experiment.augment, kind=dataset.kind, channels=dataset.channels, size=dataset.size)
    augment = dataclasses.replace(augment, views=experiment.views)
    _check_views(experiment, augment)
    if dataset.columns is not None:
        _check_columns(experiment, augment)
    elif experiment.model.fusion != "auto":
        raise ConfigError(
            f"model.fusion {experiment.model.fusion} joins columns to the images, and {dataset.name} has none in use: "
            "name them, as in --data.columns all, or leave it out"
        )
    resolved = {
        "data.size": dataset.size,
        "data.channels": dataset.channels,
        "train.metric": METRICS[dataset.task][0] if experiment.train.metric == "auto" else experiment.train.metric,
        "train.device": str(device) if experiment.train.device != "auto" else device.type,
        "train.precision": choose_precision(experiment.train.precision, device),
        "train.threads": experiment.train.threads or torch.get_num_threads(),  # see runtime/threads.py
    }
    changes = {f"augment.{name}": value for name, value in augment.__dict__.items()}
    return experiment.override_all(changes | resolved)


def _check_task(experiment: Experiment, task: Task) -> None:
    """Raise ConfigError if the images cannot be judged, or the model not be taught, as the experiment says."""
    metric, possible = experiment.train.metric, METRICS[task]
    if metric not in ("auto", *possible):
        raise ConfigError(f"train.metric {metric} is no score of data.task {task}: choose one of {', '.join(possible)}")
    if task == "multilabel" and experiment.loss.distill:
        raise ConfigError("loss.distill teaches one class an image, and these images have several labels: set it to 0")
    if task == "ordinal" and experiment.loss.name == "bce":
        raise ConfigError("loss.name bce asks for each class apart, but ordered grades share one value: leave it out")
    if task == "ordinal" and experiment.model.probe and experiment.loss.adjustment:
        raise ConfigError(
            "loss.adjustment shifts each class of a linear probe, but ordered grades share one value: leave it out"
        )


def _check_probe(experiment: Experiment) -> None:
    """Raise ConfigError if the head cannot be fitted to features."""
    if not experiment.model.probe:
        return
    if experiment.model.weights is None:
        raise ConfigError(
            "model.probe fits a head to the features of pretrained weights: set model.weights, or leave it out"
        )
    if experiment.data.stream:
        raise ConfigError("model.probe cannot be used with data.stream: leave one of them out")


def _check_views(experiment: Experiment, augment: AugmentConfig) -> None:
    """Raise ConfigError if the features of single images cannot be cached."""
    schedule = experiment.schedule
    if augment.views and (schedule.size_from, schedule.size_to) != (1, 1):
        raise ConfigError(
            f"augment.views {augment.views} caches features of images of one size, but schedule.size_from and "
            "schedule.size_to change it: leave one out, for example by --augment.views 0"
        )
    if augment.views and experiment.loss.distill:
        raise ConfigError("augment.views caches features, but a teacher sees images: set augment.views to 0")
    mixes = [name for name in ("mixup", "cutmix") if getattr(augment, name)]
    if augment.views and (mixes or experiment.data.stream):
        why = f"augment.{mixes[0]} mixes images" if mixes else "data.stream is for more images than memory holds"
        raise ConfigError(
            f"augment.views {augment.views} caches the backbone's features of each image, but {why}: leave one out, "
            "for example by --augment.views 0"
        )


def _check_columns(experiment: Experiment, augment: AugmentConfig) -> None:
    """Raise ConfigError if the images cannot be trained on beside their columns."""
    for name in ("mixup", "cutmix"):
        if getattr(augment, name):
            raise ConfigError(
                f"augment.{name} mixes images, but not the columns that join them (data.columns): set it to 0"
            )
    if experiment.loss.distill:
        raise ConfigError("loss.distill has a teacher that sees images alone: leave it or data.columns out")


def choose_precision(requested: str, device: torch.device) -> str:
    """Choose bf16 where it is faster; emulated or on slow units it is slower than fp32."""
    if requested != "auto":
        if requested == "fp16" and device.type == "cpu":
            raise ConfigError("train.precision fp16 is for GPUs: use bf16 or fp32 on a CPU")
        return requested
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        flags = getattr(torch.cpu, "get_capabilities", dict)()
        # Measured (LOG.md): AVX512's bf16 is twice as fast as fp32 on AMD (which alone has sse4a), and 1.5 times slower
        # on Intel without AMX.
        is_faster = flags.get("amx_bf16") or (flags.get("avx512_bf16") and flags.get("sse4a"))
        return "bf16" if is_faster else "fp32"
    return "fp32"
