"""torchrun's part of a training: rank 0 is the verb as always; the others only train along, and write nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.runs.folder import Run
from classifier.runs.recorder import recorded
from classifier.runtime.distributed import Group, joined, pick_device
from jobs.cli.interrupts import Interrupts
from jobs.cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request


def world() -> int:
    """How many processes torchrun launched; 1 where it did not."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_follower() -> bool:
    return world() > 1 and os.environ["RANK"] != "0"


def told(request: Request) -> Request:
    """The request with workers.count as torchrun has it. ConfigError if the user named another."""
    count = request.changes.get("workers.count", world())
    if count != world():
        raise ConfigError(f"--workers.count {count}: torchrun has launched {world()} workers already; leave it out")
    return Request(request.options, request.changes | {"workers.count": count})


@contextmanager
def together(
    experiment: Experiment | None = None, folder: Path | None = None
) -> Iterator[tuple[Group, Experiment, Run]]:
    """Meet the other ranks; all get rank 0's resolved experiment and run folder."""
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    with joined():  # gloo for tensors on the CPU, nccl for those on GPUs
        shared = Group.joined(torch.device("cpu")).share((experiment, folder))
        device = pick_device(shared[0].train.device)
        if device.type == "cuda":
            device = torch.device("cuda", local)
        yield Group.joined(device), shared[0], Run(shared[1])


def follow() -> int:
    """The whole life of a rank above 0."""
    stopped = None
    with Interrupts() as interrupts, together() as (group, experiment, run):
        dataset = data.load(experiment.data)
        for epoch in recorded(run, experiment, dataset, group=group, should_stop=lambda: interrupts.asked):
            stopped = epoch.stopped
    return EXIT_INTERRUPTED if stopped == "asked" else EXIT_DONE
