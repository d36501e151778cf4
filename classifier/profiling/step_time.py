"""Measure an experiment on this machine: step time, prediction latency, the fastest batch size."""

import contextlib
import dataclasses
import gc
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from classifier import models
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset
from classifier.data.images.arrays import decodes_on_access
from classifier.inference.scorer import Scorer
from classifier.profiling.scaling import Workload
from classifier.runtime import cpu
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training.state import TrainState, build_model

# The first predictions also load kernels and allocate memory, and are not counted.
WARMUP_RUNS, MEASURED_RUNS = 2, 5
# Batch sizes whose relative speeds differ by less count as equally fast.
SPEED_TOLERANCE = 0.03
MAX_BATCH = 4096
# Lower bound on the share of a step that depends on the number of images: measured shares may be 0 by noise.
MIN_IMAGE_SHARE = 0.01
# Seconds of training steps that a forecast is based on.
MEASURE_SECONDS = 4.0


@dataclass(frozen=True)
class StepTime:
    """The cost of a training on this machine."""

    step_seconds: float
    """Per training step."""
    image_seconds: float = 0.0
    """Per image, the backbone's forward pass, where its features are cached (augment.views): beside the steps."""


def measure_step_time(experiment: Experiment, dataset: Dataset, steps: int = 3, min_seconds: float = 0.0) -> StepTime:
    """Measure the step time of a resolved experiment: the fastest of a few steps after a warm-up step.

    Other work on the machine can only slow a step down, and may be over before the training is. min_seconds: go on for
    that long, with other images in each step, as in a training; then the median counts.
    """
    frozen_epochs, epochs = experiment.model.freeze_epochs, experiment.train.epochs
    if experiment.views and frozen_epochs is not None:
        frozen = measure_step_time(experiment.override("model.freeze_epochs", None), dataset, steps, min_seconds)
        unfrozen = measure_step_time(experiment.override("model.freeze", "none"), dataset, steps, min_seconds)
        share = min(1.0, frozen_epochs / epochs)
        step_seconds = share * frozen.step_seconds + (1 - share) * unfrozen.step_seconds
        return dataclasses.replace(frozen, step_seconds=step_seconds)
    state = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
    cpu.setup(state.device.type)  # as in a training
    state.begin_epoch(0)
    summarize = statistics.median if min_seconds else min
    seconds, cached_seconds, epoch = [], [], -1
    for batch in _endless_batches(state):
        epoch += batch.step == 0
        seconds.append(_time_step(state, batch, epoch))  # loading is measured separately
        if state.feature_cache:
            cached_seconds.append(_time_step(state, batch, epoch))
        if len(seconds) > steps and sum(seconds[1:]) >= min_seconds:
            break
    if not cached_seconds:
        return StepTime(summarize(seconds[1:]))
    step_seconds = summarize(cached_seconds[1:])
    # The median, not the fastest: over a whole search, the backbone runs at the machine's average speed.
    return StepTime(step_seconds, max(0.0, statistics.median(seconds[1:]) - step_seconds) / state.batch)


def _endless_batches(state: TrainState) -> Iterator[loader.Batch]:
    """The batches of one epoch after another."""
    split, seed = state.dataset.train, state.experiment.seed
    epochs = (loader.batches(split, batch=state.batch, seed=seed, epoch=epoch) for epoch in itertools.count())
    return loader.prefetch(itertools.chain.from_iterable(epochs), decodes=decodes_on_access(split.images_NCHW))


def _time_step(state: TrainState, batch: loader.Batch, epoch: int) -> float:
    started = time.perf_counter()
    state.train_step(batch, epoch)
    state.sums.tolist()  # waits for the device
    return time.perf_counter() - started


def measure_step_seconds(experiment: Experiment, dataset: Dataset) -> float:
    """Measure the seconds per training step of a resolved experiment."""
    return measure_step_time(experiment, dataset).step_seconds


def measure_prediction(experiment: Experiment, dataset: Dataset, batch: int) -> dict[str, float]:
    """Measure prediction by a resolved experiment's untrained model, preprocessing included.

    `latency` is for a single image, `latency_batch` per image of a batch, both in milliseconds and medians of several
    runs; `size` is the number of parameters. Measure with nothing else running.
    """
    device = pick_device(experiment.train.device)
    scorer = Scorer.from_experiment(experiment, dataset, device)
    model = scorer.prepare_model(build_model(experiment, dataset))
    images_NCHW = dataset.train.images_NCHW[:batch]
    return {
        "latency": 1000 * _time_prediction(scorer, model, images_NCHW[:1]),
        "latency_batch": 1000 * _time_prediction(scorer, model, images_NCHW) / len(images_NCHW),
        "size": float(models.count_parameters(model)),
    }


def find_batch_size(experiment: Experiment, dataset: Dataset) -> tuple[int, dict[int, float]]:
    """Find the fastest batch size that fits into memory, the largest of equally fast ones; with images/s by batch size.

    Doubles from 8 until out of memory or training images, or until two sizes in a row are slower by a tenth.
    """
    speeds: dict[int, float] = {}
    batch, slower = 8, 0
    limit = min(MAX_BATCH, len(dataset.train) // experiment.optimizer.accumulate)
    while batch <= limit and slower < 2:
        tried = experiment.override("data.batch", batch)
        try:
            speeds[batch] = batch * experiment.optimizer.accumulate / measure_step_seconds(tried, dataset)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or not speeds:
                raise
            gc.collect()
            torch.cuda.empty_cache()
            break
        slower = slower + 1 if speeds[batch] < 0.9 * max(speeds.values()) else 0
        batch *= 2
    if not speeds:
        return experiment.data.batch, {}
    fastest = max(speeds.values())
    return max(size for size, speed in speeds.items() if speed >= (1 - SPEED_TOLERANCE) * fastest), speeds


def measure_workload(experiment: Experiment, dataset: Dataset, busy_workers: int = 0) -> Workload:
    """Measure a resolved experiment on this machine, with train.threads threads, for `scaling.forecast`.

    busy_workers: how many other workers will compute on the same processor, and share its clock and caches.
    """
    batch = experiment.data.batch * experiment.optimizer.accumulate
    small, threads = max(1, batch // 4), torch.get_num_threads()
    torch.set_num_threads(experiment.train.threads or threads)
    try:
        with _background_load(busy_workers, torch.get_num_threads()):
            full = measure_step_time(experiment, dataset, min_seconds=MEASURE_SECONDS)
            smaller = experiment.override_all({"data.batch": small, "optimizer.accumulate": 1})
            part = measure_step_time(smaller, dataset, min_seconds=MEASURE_SECONDS)
    finally:
        torch.set_num_threads(threads)
    image_seconds, overhead_seconds = split_step_seconds(
        full.step_seconds, part.step_seconds, batch=batch, small_batch=small
    )
    state = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
    state.begin_epoch(0)
    backbone_share = 1.0  # of the epochs: a frozen backbone whose features are cached runs in the first ones only
    if state.feature_cache:
        backbone_share = min(1.0, state.feature_cache.views / experiment.train.epochs)
    flops, activation_bytes = _count_flops_and_activations(state, backbone_share)
    parameters = models.count_parameters(state.model)
    # Weights, gradients and the optimizer's state, as float32.
    model_bytes = 4 * parameters * (2 if experiment.optimizer.name == "sgd" else 3) + 4 * parameters
    return Workload(
        batch=batch,
        images=len(dataset.train),
        epochs=experiment.train.epochs,
        parameters=parameters,
        image_seconds=image_seconds + backbone_share * full.image_seconds,
        step_seconds=overhead_seconds,
        input_seconds=_measure_input_seconds(experiment, dataset),
        flops=flops,
        memory_bytes=model_bytes + activation_bytes * experiment.data.batch,
    )


def _count_flops_and_activations(state: TrainState, backbone_share: float) -> tuple[float, float]:
    """(FLOPs, bytes of activations) per image of a training step, counted on two images."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = next(loader.batches(state.dataset.train, batch=2, seed=0, epoch=0))
    saved_bytes: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved_bytes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(record, lambda t: t):
        state.train_step(batch, 0)
    flops = float(counter.get_total_flops())
    if state.feature_cache:  # the features are cached now: a second step runs the head alone
        with FlopCounterMode(display=False) as counter:
            state.train_step(batch, 0)
        flops = counter.get_total_flops() + backbone_share * (flops - counter.get_total_flops())
    # Among the saved tensors are the weights.
    activation_bytes = max(0, sum(saved_bytes.values()) - 4 * models.count_parameters(state.model)) / 2
    return flops / len(batch.labels_N), activation_bytes


def split_step_seconds(
    seconds: float, small_batch_seconds: float, *, batch: int, small_batch: int
) -> tuple[float, float]:
    """Split a step's time into (seconds per image, overhead per step), given the step time of a smaller batch too.

    The smaller batch may have been measured slower, on a busy machine: images take at least MIN_IMAGE_SHARE.
    """
    max_image_seconds = seconds / batch
    if batch <= small_batch:
        return max_image_seconds, 0.0
    slope = (seconds - small_batch_seconds) / (batch - small_batch)
    image_seconds = min(max(slope, MIN_IMAGE_SHARE * max_image_seconds), max_image_seconds)
    return image_seconds, max(0.0, seconds - image_seconds * batch)


@contextlib.contextmanager
def _background_load(count: int, threads: int) -> Iterator[None]:
    """Run `count` threads that multiply matrices on `threads` cores each; they hold the GIL only briefly."""
    stop = threading.Event()

    def multiply() -> None:
        torch.set_num_threads(threads)  # a per-thread setting of OpenMP
        matrix = torch.rand(768, 768)
        while not stop.is_set():
            torch.mm(matrix, matrix)

    workers = [threading.Thread(target=multiply, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def _measure_input_seconds(experiment: Experiment, dataset: Dataset) -> float:
    """Measure the seconds per image to load a batch, on one core."""
    started, count = time.perf_counter(), 0
    for batch in loader.batches(dataset.train, batch=experiment.data.batch, seed=0, epoch=0):
        count += len(batch.labels_N)
        if count > 10_000:
            break
    return (time.perf_counter() - started) / count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory; on the CPU, torch's allocator raises a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in ("not enough memory", "out of memory", "can't allocate memory"))


def _time_prediction(scorer: Scorer, model: torch.nn.Module, images_NCHW: torch.Tensor) -> float:
    seconds = []
    for _ in range(WARMUP_RUNS + MEASURED_RUNS):
        started = time.perf_counter()
        scorer.predict_log_probabilities(model, images_NCHW).tolist()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARMUP_RUNS:])
