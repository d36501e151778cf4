"""Training under torchrun: rank 0 runs the verb as usual; the other ranks only train, and write nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training
from classifier.runtime.distributed import ProcessGroup, init_process_group, pick_device

from ..cli.interrupts import Interrupts
from ..cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request
from .network_interface import use_interface


def world_size() -> int:
    """Number of processes launched by torchrun; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_follower() -> bool:
    """Whether this process is a rank above 0."""
    return world_size() > 1 and os.environ["RANK"] != "0"


def set_worker_count(request: Request) -> Request:
    """The request with torchrun's number of workers as workers.count. ConfigError if the user set another."""
    launched = world_size()
    count = request.changes.get("workers.count", launched)
    if count != launched:
        raise ConfigError(f"--workers.count {count}: torchrun has launched {launched} workers already; leave it out")
    return Request(request.options, request.changes | {"workers.count": count})


@contextmanager
def join_workers(
    experiment: Experiment | None = None, folder: Path | None = None
) -> Iterator[tuple[ProcessGroup, Experiment, RunFolder]]:
    """Join the other ranks' process group; every rank gets rank 0's resolved experiment and run folder."""
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:  # all on this machine
        use_interface("127.0.0.1")
    with init_process_group():  # gloo for tensors on the CPU, nccl for those on GPUs
        shared = ProcessGroup.current(torch.device("cpu")).broadcast((experiment, folder))
        device = pick_device(shared[0].train.device)
        if device.type == "cuda":
            device = torch.device("cuda", local)
        yield ProcessGroup.current(device), shared[0], RunFolder(shared[1])


def run_follower() -> int:
    """Run a rank above 0 to its end; its exit code."""
    stopped = None
    with Interrupts() as interrupts, join_workers() as (group, experiment, run):
        dataset = data.load(experiment.data)
        for epoch in record_training(
            run, experiment, dataset, group=group, should_stop=lambda: interrupts.stop_requested
        ):
            stopped = epoch.stopped
    return EXIT_INTERRUPTED if stopped == "asked" else EXIT_DONE
