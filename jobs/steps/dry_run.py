"""--dry_run: the preparations of a training and one step, leaving nothing behind."""

import itertools
import time
from collections.abc import Callable, Iterable

import torch

from classifier import data, models
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset
from classifier.runtime.cpu import peak_memory_bytes
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training import image_size
from classifier.training.progress import describe_run
from classifier.training.resolve import resolve
from classifier.training.state import TrainState

from ..cli.console import RunLog
from ..cli.verb import Request
from .recipe import request_experiment, use_cores


def dry_run(
    request: Request,
    check: Callable[[Experiment, Dataset], Iterable[str]] = lambda experiment, dataset: (),
    *,
    in_steps: bool = False,
) -> None:
    """Print data, shapes, memory use and the time of one step. in_steps: as in `request_experiment`.

    check: checks what else the verb would do with the requested experiment, and returns lines on it.
    """
    log = RunLog()
    with use_cores(request, log):
        _take_a_step(request_experiment(request, log, in_steps=in_steps), check, log.info)


def _take_a_step(
    requested: Experiment, check: Callable[[Experiment, Dataset], Iterable[str]], info: Callable[[str], None]
) -> None:
    dataset = data.load(requested.data)
    experiment = resolve(requested, dataset)
    for line in (*describe_run(experiment, dataset), *check(requested, dataset)):
        info(line)
    group = ProcessGroup(device=pick_device(experiment.train.device))
    state = TrainState(experiment, dataset, group)
    state.begin_epoch(0)
    batch = next(loader.batches(dataset.train, batch=state.batch, seed=experiment.seed, epoch=0))
    info(f"images {tuple(batch.images_NCHW.shape)} uint8, labels {tuple(batch.labels_N.shape)} int64")
    info(f"{models.count_parameters(state.model):,} parameters; {state.steps_per_epoch} steps per epoch")
    loss, seconds = 0.0, [0.0, 0.0]
    sizes = image_size.list_sizes(experiment.schedule, size=dataset.size, epochs=experiment.train.epochs)
    for (epoch, share), n in itertools.product(sizes.values(), range(2)):  # the first also includes warm-up
        began = time.perf_counter()
        state.train_step(batch, epoch)
        loss = float(state.sums[0] / state.sums[2])
        seconds[n] += share * (time.perf_counter() - began)
    # A frozen backbone runs once per view of an image; later epochs use the cached features.
    backbone_steps = min(experiment.views, experiment.train.epochs) * len(dataset.train) / state.batch
    minutes = (seconds[1] * state.steps + backbone_steps * seconds[0]) / 60
    info(f"one step: loss {loss:.4f}, {seconds[1]:.3f} s; about {minutes:.1f} minutes for all epochs")
    if peaks := _peak_memory(group.device):
        info(f"memory: {', '.join(peaks)}")


def _peak_memory(device: torch.device) -> list[str]:
    peaks = {"peak in this process": peak_memory_bytes()}
    if device.type == "cuda":
        peaks["on the GPU"] = torch.cuda.max_memory_allocated(device)
    return [f"{peak / 2**20:,.0f} MiB {where}" for where, peak in peaks.items() if peak is not None]
