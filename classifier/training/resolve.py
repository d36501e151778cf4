"""Decide what an experiment left open, once, from facts of the data and the machine and never from timing.

The resolved experiment is what is saved and resumed, so that two runs of it agree.
"""

import dataclasses

import torch

from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.config.sections import AugmentConfig
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.models import factory
from classifier.runtime.distributed import pick_device


def resolve(experiment: Experiment, dataset: Dataset) -> Experiment:
    """Every setting that decides the result gets its value: sizes, augmentation, device, precision, threads.

    Idempotent. ConfigError, ModelError or DataError if the experiment cannot be run on these images or this machine.
    """
    factory.get_constructor(experiment.model)
    count, batch = len(dataset.train), experiment.data.batch * experiment.optimizer.accumulate
    if batch > count:
        largest = 2 ** max(0, count.bit_length() - 1)
        product = (
            f" x optimizer.accumulate {experiment.optimizer.accumulate}" if experiment.optimizer.accumulate > 1 else ""
        )
        raise ConfigError(
            f"data.batch {experiment.data.batch}{product} is more than the {count} training images of {dataset.name}: "
            f"use --data.batch {largest} or less"
        )
    asks = experiment.train.keep == "best" or experiment.train.patience or experiment.schedule.name == "plateau"
    if len(dataset.validation) == 0 and asks:
        raise DataError(
            f"{dataset.name} has no validation images: set --data.validation above 0; or train without them, with "
            "--train.keep last, no train.patience, and no schedule that waits for a plateau"
        )
    device = pick_device(experiment.train.device)
    augment = policy.resolve(experiment.augment, kind=dataset.kind, channels=dataset.channels, size=dataset.size)
    augment = dataclasses.replace(augment, views=experiment.views)
    _refuse_views(experiment, augment)
    resolved = {
        "data.size": dataset.size,
        "data.channels": dataset.channels,
        "train.device": str(device) if experiment.train.device != "auto" else device.type,
        "train.precision": _precision(experiment.train.precision, device),
        "train.threads": experiment.train.threads or torch.get_num_threads(),
    }
    changes = {f"augment.{name}": value for name, value in augment.__dict__.items()}
    return experiment.override_all(changes | resolved)


def _refuse_views(experiment: Experiment, augment: AugmentConfig) -> None:
    """ConfigError where features of single images cannot be kept."""
    mixes = [name for name in ("mixup", "cutmix") if getattr(augment, name)]
    if augment.views and (mixes or experiment.data.stream):
        why = f"augment.{mixes[0]} mixes images" if mixes else "data.stream is for more images than memory holds"
        raise ConfigError(
            f"augment.views {augment.views} keeps what the backbone sees in each image, but {why}: leave one out, "
            "as by --augment.views 0"
        )


def _precision(wanted: str, device: torch.device) -> str:
    """bf16 where the processor gains by it: emulated, or in half-hearted units, it is slower than fp32."""
    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise ConfigError("train.precision fp16 is for GPUs: use bf16 or fp32 on a CPU")
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        flags = getattr(torch.cpu, "get_capabilities", dict)()
        # Measured (LOG.md): on AMD (sse4a is its own) AVX512's bf16 is twice as fast as fp32, on an Intel without AMX
        # 1.5 times slower.
        gains = flags.get("amx_bf16") or (flags.get("avx512_bf16") and flags.get("sse4a"))
        return "bf16" if gains else "fp32"
    return "fp32"
