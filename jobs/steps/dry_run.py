"""--dry_run: all that a training would do first, and one step of it, leaving nothing behind."""

import resource
import time

import torch

from classifier import data, models
from classifier.data import loader
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training.resolve import resolve
from classifier.training.state import TrainState
from jobs.cli.console import console, describe_run
from jobs.cli.verb import Request


def rehearse(request: Request) -> None:
    """--dry_run: show data, shapes, memory and one step, and leave nothing behind."""
    say = console(soft_wrap=True).print
    experiment = request.experiment()
    dataset = data.load(experiment.data)
    experiment = resolve(experiment, dataset)
    for line in describe_run(experiment, dataset):
        say(line)
    group = ProcessGroup(device=pick_device(experiment.train.device))
    training = TrainState(experiment, dataset, group)
    training.begin_epoch(0)
    batch = next(loader.batches(dataset.train, batch=training.batch, seed=experiment.seed, epoch=0))
    say(f"images {tuple(batch.images_NCHW.shape)} uint8, labels {tuple(batch.labels_N.shape)} int64")
    say(f"{models.parameter_count(training.model):,} parameters; {training.steps_per_epoch} steps an epoch")
    loss, seconds = 0.0, []
    for _ in range(2):  # the first also prepares kernels and memory
        began = time.perf_counter()
        training.train_step(batch, 0)
        loss = float(training.sums[0] / training.sums[2])
        seconds.append(time.perf_counter() - began)
    # A frozen backbone sees each view of an image in a first step alone.
    seen = min(experiment.views, experiment.train.epochs) * len(dataset.train) / training.batch
    minutes = (seconds[1] * training.steps + seen * seconds[0]) / 60
    say(f"one step: loss {loss:.4f}, {seconds[1]:.3f} s; about {minutes:.1f} minutes for all epochs")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"memory: {peak:,.0f} MiB at most in this process" + _gpu_memory(group.device))


def _gpu_memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f", {torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB on the GPU"
