"""How a training scales: what a step takes on N workers, from what it takes on one.

The model: a worker computes its share of the batch, then a ring over the machines averages the gradients; all but the
last bucket of that hides behind the backward pass, which is two thirds of the computing. All wait for the slowest: of N
step times that vary by a share JITTER, the largest lies about sqrt(2 ln N) deviations above the mean (the expected
maximum of N normal variables). Input runs beside it, and counts where it is slower. LOG.md has what it says of
published runs, and its assumptions.
"""

import math
from dataclasses import dataclass

# Of a GPU's peak that training of image models reaches where nothing was measured on it.
UTILISATION = 0.35
# A step's standard deviation from worker to worker, as a share.
JITTER = 0.02
BACKWARD = 2 / 3
# Bytes that are exchanged after the last gradient is there (DDP's bucket), and seconds that one hop takes.
BUCKET, HOP = 25e6, 20e-6
# A batch that is smaller than this on a worker leaves a GPU idle.
SMALL_SHARD = 8


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One training, as it was measured or counted on this machine.

    image_seconds: to compute one image, forward and backward, on one worker here; step_seconds: what a step takes
    beside; input_seconds: to bring one image, on one core; flops: of an image, forward and backward.
    """

    batch: int
    images: int
    epochs: int
    parameters: int
    image_seconds: float
    step_seconds: float
    input_seconds: float
    flops: float
    memory_bytes: float
    """At the whole batch on one worker: weights, gradients, optimizer, activations."""


@dataclass(frozen=True, kw_only=True)
class MachineType:
    """A machine. `tflops` None: this one, where the load was measured."""

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
    """What N workers of a kind would take. Seconds of a step, by what they go to; `efficiency` against one worker."""

    workers: int
    machines: int
    compute: float
    exchange: float
    """Of the all-reduce, what the backward pass does not hide."""
    waiting: float
    """For the slowest worker."""
    input: float
    """Beyond what runs beside the computing."""
    efficiency: float
    images_per_second: float
    hours: float
    dollars: float
    spot_dollars: float | None
    memory_gib: float
    network_gbit: float
    """That each machine sends while a step lasts."""

    @property
    def step(self) -> float:
        return self.compute + self.exchange + self.waiting + self.input


def forecast(
    load: Workload, kind: MachineType, workers: int, *, bytes_a_gradient: int = 4, alone: Workload | None = None
) -> Forecast:
    """The step, the hours and the money of a training whose batch `workers` workers share.

    alone: the load as one worker has it, where workers that share this machine are slower.
    """
    step, machines, parts = _step(load, kind, workers, bytes_a_gradient)
    one, *_ = _step(alone or load, kind, 1, bytes_a_gradient)
    steps = load.epochs * math.ceil(load.images / load.batch)
    hours = steps * step / 3600
    compute, exchange, waiting, bringing, sent = parts
    return Forecast(
        workers=workers,
        machines=machines,
        compute=compute,
        exchange=exchange,
        waiting=waiting,
        input=bringing,
        efficiency=one / step / workers,
        images_per_second=load.batch / step,
        hours=hours,
        dollars=hours * machines * kind.dollars_an_hour,
        spot_dollars=hours * machines * kind.spot_dollars_an_hour if kind.spot_dollars_an_hour is not None else None,
        memory_gib=load.memory_bytes / workers / 2**30 if workers > 1 else load.memory_bytes / 2**30,
        network_gbit=8e-9 * sent / step,
    )


def _step(
    load: Workload, kind: MachineType, workers: int, bytes_a_gradient: int
) -> tuple[float, int, tuple[float, float, float, float, float]]:
    machines = math.ceil(workers / kind.gpus)
    shard = load.batch / workers
    image_seconds = load.image_seconds
    if kind.tflops is not None:
        image_seconds = load.flops / (UTILISATION * kind.tflops * 1e12)
    # Launching kernels does not get faster with the GPU.
    compute = shard * image_seconds + load.step_seconds
    sent = 2 * (machines - 1) / machines * load.parameters * bytes_a_gradient
    bandwidth = kind.network_gbit * 1e9 / 8
    ring = sent / bandwidth + 2 * math.log2(max(machines, 1)) * HOP
    last = min(BUCKET, load.parameters * bytes_a_gradient) / (load.parameters * bytes_a_gradient) * ring
    exchange = max(last, ring - BACKWARD * compute) if machines > 1 else 0.0
    waiting = compute * JITTER * math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0
    cores = kind.cores / min(kind.gpus, workers)
    bringing = max(0.0, shard * load.input_seconds / max(cores, 1) - (compute + exchange + waiting))
    return compute + exchange + waiting + bringing, machines, (compute, exchange, waiting, bringing, sent)


def warnings(load: Workload, kind: MachineType, found: Forecast) -> list[str]:
    """Obvious wastes, a sentence each."""
    said = []
    shard = load.batch / found.workers
    if shard < SMALL_SHARD:
        said.append(
            f"{found.workers} workers share a batch of {load.batch}: {shard:.1f} images each keep no GPU busy; give "
            f"--data.batch {2 ** math.ceil(math.log2(SMALL_SHARD * 4 * found.workers))}, or fewer workers"
        )
    if found.input > 0.1 * found.step:
        said.append(
            f"{found.input / found.step:.0%} of a step is spent waiting for images: more cores a GPU, or smaller images"
        )
    if found.exchange > 0.2 * found.step:
        said.append(
            f"{found.exchange / found.step:.0%} of a step is spent on the network: a larger batch, or a faster network"
        )
    if found.memory_gib > kind.memory_gib:
        said.append(
            f"a worker needs about {found.memory_gib:.1f} GiB and has {kind.memory_gib:g}: a smaller --data.batch with "
            "--optimizer.accumulate"
        )
    return said
