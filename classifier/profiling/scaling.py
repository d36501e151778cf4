"""How a training scales: the step time on N workers, from the step time on one.

The model: each worker computes its shard of the batch, then a ring all-reduce over the machines averages the gradients.
All of it but the last bucket overlaps with the backward pass, which is two thirds of the compute time. Everyone waits
for the slowest worker: of N step times with relative standard deviation JITTER, the largest lies about sqrt(2 ln N)
deviations above the mean (the expected maximum of N normal variables). Input runs in parallel, and counts where it is
slower. LOG.md lists the assumptions, and compares the model with published runs.
"""

import math
from dataclasses import dataclass

# Share of a GPU's peak FLOPS that training an image model reaches, where nothing was measured on it.
ASSUMED_UTILISATION = 0.35
# Assumed to be the longest that Python takes to launch a batch's work on a GPU, which computes meanwhile. Measured on a
# CPU, the overhead of a step is more: the update of the weights of a large network takes a tenth of a second.
MAX_LAUNCH_SECONDS = 0.02
# Standard deviation of a step's time between workers, relative to its mean.
JITTER = 0.02
BACKWARD_SHARE = 2 / 3
# Bytes exchanged after the last gradient is computed (DDP's bucket), and the latency of one hop.
DDP_BUCKET_BYTES, HOP_SECONDS = 25e6, 20e-6
# With fewer images per worker, a GPU is mostly idle.
MIN_SHARD_IMAGES = 8
# No step is forecast to be shorter, whatever was measured.
MIN_STEP_SECONDS = 1e-7


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The cost of a training, as measured or counted on this machine.

    image_seconds: compute time per image, forward and backward, on one worker here; step_seconds: overhead per step;
    input_seconds: time to load one image, on one core; flops: per image, forward and backward.
    """

    batch: int
    images: int
    epochs: int
    parameters: int
    image_seconds: float
    step_seconds: float
    input_seconds: float
    flops: float
    batches: int = 1
    """Batches that a step accumulates, `batch` images in all."""
    memory_bytes: float
    """For the full batch on one worker: weights, gradients, optimizer state, activations."""
    fastest: float = 1.0
    """The fastest step that was measured, or expected without other work on the machine, relative to these times."""
    slowest: float = 1.0
    """The slowest step that was measured, likewise."""
    busy_share: float = 0.0
    """The share of the processor's time that this process lost to other work meanwhile."""


@dataclass(frozen=True, kw_only=True)
class MachineType:
    """A machine to forecast for. `tflops` None: this machine, where the workload was measured."""

    name: str
    gpus: int = 1
    tflops: float | None = None
    memory_gib: float = math.inf
    cores: int = 1
    network_gbit: float = math.inf
    dollars_an_hour: float = 0.0
    spot_dollars_an_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Time and cost on N workers. `compute`, `exchange`, `waiting` and `input` are seconds per step.

    `efficiency` is the throughput per worker, relative to one worker alone: at most 1, as one worker could do what
    several do in turns; measured times may say otherwise, by noise."""

    workers: int
    machines: int
    compute: float
    exchange: float
    """The part of the all-reduce that does not overlap with the backward pass."""
    waiting: float
    """For the slowest worker."""
    input: float
    """The part of loading that does not overlap with compute and exchange."""
    efficiency: float
    images_per_second: float
    hours: float
    hours_range: tuple[float, float]
    """By the fastest and the slowest step that was measured here."""
    dollars: float
    spot_dollars: float | None
    memory_gib: float
    network_gbit: float
    """Sent by each machine, averaged over the step."""

    @property
    def step(self) -> float:
        return self.compute + self.exchange + self.waiting + self.input


def forecast(
    workload: Workload,
    machine: MachineType,
    workers: int,
    *,
    gradient_bytes: int = 4,
    one_worker: Workload | None = None,
) -> Forecast:
    """Forecast step time, hours and cost of a training whose global batch is split over `workers` workers.

    one_worker: the workload as measured for a single worker, where workers that share this machine are slower.
    """
    step, machines, parts = _step(workload, machine, workers, gradient_bytes)
    one_worker_step, *_ = _step(one_worker or workload, machine, 1, gradient_bytes)
    steps = workload.epochs * math.ceil(workload.images / workload.batch)
    hours = steps * step / 3600
    compute, exchange, waiting, input_wait, sent_bytes = parts
    return Forecast(
        workers=workers,
        machines=machines,
        compute=compute,
        exchange=exchange,
        waiting=waiting,
        input=input_wait,
        efficiency=min(1.0, one_worker_step / step / workers),
        images_per_second=workload.batch / step,
        hours=hours,
        hours_range=(hours * workload.fastest, hours * workload.slowest) if machine.tflops is None else (hours, hours),
        dollars=hours * machines * machine.dollars_an_hour,
        spot_dollars=hours * machines * machine.spot_dollars_an_hour
        if machine.spot_dollars_an_hour is not None
        else None,
        memory_gib=workload.memory_bytes / workers / 2**30 if workers > 1 else workload.memory_bytes / 2**30,
        network_gbit=8e-9 * sent_bytes / step,
    )


def _step(
    workload: Workload, machine: MachineType, workers: int, gradient_bytes: int
) -> tuple[float, int, tuple[float, float, float, float, float]]:
    """(seconds per step, machines, (compute, exchange, waiting, input, bytes sent by each machine))."""
    machines = math.ceil(workers / machine.gpus)
    shard = workload.batch / workers
    if machine.tflops is None:
        compute = shard * workload.image_seconds + workload.step_seconds
    else:  # launches do not become faster on a faster GPU
        launch_seconds = min(workload.step_seconds, workload.batches * MAX_LAUNCH_SECONDS)
        compute = max(shard * workload.flops / (ASSUMED_UTILISATION * machine.tflops * 1e12), launch_seconds)
    compute = max(MIN_STEP_SECONDS, compute)
    sent_bytes = 2 * (machines - 1) / machines * workload.parameters * gradient_bytes
    bandwidth = machine.network_gbit * 1e9 / 8
    ring = sent_bytes / bandwidth + 2 * math.log2(max(machines, 1)) * HOP_SECONDS
    gradients = max(1, workload.parameters) * gradient_bytes
    last = min(DDP_BUCKET_BYTES, gradients) / gradients * ring
    exchange = max(last, ring - BACKWARD_SHARE * compute) if machines > 1 else 0.0
    waiting = compute * JITTER * math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0
    cores = machine.cores / min(machine.gpus, workers)
    input_wait = max(0.0, shard * workload.input_seconds / max(cores, 1) - (compute + exchange + waiting))
    return compute + exchange + waiting + input_wait, machines, (compute, exchange, waiting, input_wait, sent_bytes)


def find_waste(workload: Workload, machine: MachineType, forecast: Forecast) -> list[str]:
    """Describe obvious waste, one sentence each."""
    notes = []
    shard = workload.batch / forecast.workers
    if shard < MIN_SHARD_IMAGES:
        notes.append(
            f"{forecast.workers} workers share a batch of {workload.batch}: {shard:.1f} images each do not keep a GPU "
            f"busy; use --data.batch {2 ** math.ceil(math.log2(MIN_SHARD_IMAGES * 4 * forecast.workers))}, or fewer "
            "workers"
        )
    if forecast.input > 0.1 * forecast.step:
        notes.append(
            f"{forecast.input / forecast.step:.0%} of a step is spent waiting for images: use more cores per GPU, or "
            "smaller images"
        )
    if forecast.exchange > 0.2 * forecast.step:
        notes.append(
            f"{forecast.exchange / forecast.step:.0%} of a step is spent on the network: use a larger batch, or a "
            "faster network"
        )
    if forecast.memory_gib > machine.memory_gib:
        notes.append(
            f"a worker needs about {forecast.memory_gib:.1f} GiB and has {machine.memory_gib:g}: use a smaller "
            "--data.batch with --optimizer.accumulate"
        )
    return notes
