"""Measure an experiment on this machine: step time, prediction latency, the fastest batch size."""

import contextlib
import gc
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
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
from classifier.runtime.threads import use_threads
from classifier.training import image_size
from classifier.training.state import TrainState, build_model

# The first predictions also load kernels and allocate memory, and are not counted.
WARMUP_RUNS, MEASURED_RUNS = 2, 5
# Batch sizes whose relative speeds differ by less count as equally fast.
SPEED_TOLERANCE = 0.03
MAX_BATCH = 4096
# Lower bound on the share of a step that depends on the number of images: measured shares may be 0 by noise.
MIN_IMAGE_SHARE = 0.01
# A step is timed as no shorter: no clock tells less.
MIN_STEP_SECONDS = 1e-7
# Seconds of training steps in a window, of which a forecast takes several.
WINDOW_SECONDS = 1.0
# So many windows in a row, of which the slowest step is at most so many times the fastest, are stable; after so long
# measuring ends without them.
STABLE_WINDOWS, STABLE_SPREAD, MAX_MEASURE_SECONDS = 3, 1.1, 20.0


@dataclass(frozen=True)
class StepTime:
    """The cost of a training on this machine."""

    step_seconds: float
    """Per training step."""
    image_seconds: float = 0.0
    """Per image, the backbone's forward pass, where its features are cached (augment.views): beside the steps."""


class StepTimer:
    """Times training steps of a resolved experiment, each with other images, as in a training."""

    def __init__(self, experiment: Experiment, dataset: Dataset) -> None:
        self._unfrozen: StepTimer | None = None
        if experiment.views and experiment.model.freeze_epochs is not None:
            self._frozen_share = min(1.0, experiment.model.freeze_epochs / experiment.train.epochs)
            self._unfrozen = StepTimer(experiment.override("model.freeze", "none"), dataset)
            experiment = experiment.override("model.freeze_epochs", None)
        experiment = experiment.override("semi.start", 0.0)  # the first steps would have no unlabelled images
        self._state = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
        cpu.setup(self._state.device.type)  # as in a training
        self._state.begin_epoch(0)
        self._sizes = image_size.list_sizes(experiment.schedule, size=dataset.size, epochs=experiment.train.epochs)
        self._batches, self._epoch = _endless_batches(self._state), -1
        self._time_step()  # the first step also loads kernels and allocates memory

    def measure(self, steps: int, summarize: Callable[[list[float]], float], min_seconds: float = 0.0) -> StepTime:
        """Measure at least so many steps, for at least so long."""
        rows, end = [self._time_step() for _ in range(steps)], time.perf_counter() + min_seconds
        while time.perf_counter() < end:
            rows.append(self._time_step())
        step_seconds, image_seconds = summarize([step for _, step in rows]), 0.0
        if self._state.feature_cache:
            # The median, not the fastest: over a whole search, the backbone runs at the machine's average speed.
            uncached_seconds = statistics.median(uncached for uncached, _ in rows)
            image_seconds = max(0.0, uncached_seconds - step_seconds) / self._state.batch
        if self._unfrozen is not None:
            rest = self._unfrozen.measure(steps, summarize, min_seconds)
            step_seconds = self._frozen_share * step_seconds + (1 - self._frozen_share) * rest.step_seconds
        return StepTime(step_seconds, image_seconds)

    def _time_step(self) -> tuple[float, float]:
        """Seconds of a step, and of the same one on cached features; the first twice where none are cached.

        Where the images grow from epoch to epoch, it is the mean over all epochs."""
        batch = next(self._batches)  # loading is measured separately
        self._epoch += batch.step == 0
        epochs = self._sizes.values() if len(self._sizes) > 1 else ((self._epoch, 1.0),)
        seconds = sum(share * _time_step(self._state, batch, epoch) for epoch, share in epochs)
        return seconds, _time_step(self._state, batch, self._epoch) if self._state.feature_cache else seconds


def _endless_batches(state: TrainState) -> Iterator[loader.Batch]:
    """The batches of one epoch after another."""
    split, seed = state.dataset.train, state.experiment.seed
    epochs = (loader.batches(split, batch=state.batch, seed=seed, epoch=epoch) for epoch in itertools.count())
    return loader.prefetch(itertools.chain.from_iterable(epochs), decodes=decodes_on_access(split.training_images))


def _time_step(state: TrainState, batch: loader.Batch, epoch: int) -> float:
    started = time.perf_counter()
    state.train_step(batch, epoch)
    state.sums.tolist()  # waits for the device
    return max(MIN_STEP_SECONDS, time.perf_counter() - started)


def measure_step_time(experiment: Experiment, dataset: Dataset, steps: int = 3) -> StepTime:
    """Measure the step time of a resolved experiment: the fastest of a few steps after a warm-up step.

    Other work on the machine can only slow a step down, and may be over before the training is.
    """
    return StepTimer(experiment, dataset).measure(steps, min)


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
    # A step that accumulates gradients is as many steps of one batch, but for the update of the weights.
    accumulate, experiment = experiment.optimizer.accumulate, experiment.override("optimizer.accumulate", 1)
    batch = experiment.data.batch
    small = max(1, batch // 4)
    smaller = experiment.override("data.batch", small)
    with use_threads(experiment.train.threads), _background_load(busy_workers, torch.get_num_threads()):
        timers, load = [StepTimer(one, dataset) for one in (experiment, smaller)], cpu.OtherLoad()
        # In turns, so that other work on the machine slows both down.
        rounds = repeat_until_stable(lambda: [timer.measure(1, statistics.median, WINDOW_SECONDS) for timer in timers])
        busy_share = load.lost_share((1 + busy_workers) * torch.get_num_threads())
        if pick_device(experiment.train.device).type != "cpu":
            busy_share = 0.0  # it mostly waits for the device
    full_seconds, small_seconds = (statistics.median(times[n].step_seconds for times in rounds) for n in range(2))
    uncached_image_seconds = statistics.median(full.image_seconds for full, _ in rounds)
    image_seconds, overhead_seconds = split_step_seconds(full_seconds, small_seconds, batch=batch, small_batch=small)
    step_seconds = [full.step_seconds for full, _ in rounds]
    state = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
    state.begin_epoch(0)
    backbone_share = 1.0  # of the epochs: a frozen backbone whose features are cached runs in the first ones only
    if state.feature_cache:
        backbone_share = min(1.0, state.feature_cache.views / experiment.train.epochs)
    flops, activation_bytes = _count_flops_and_activations(state, backbone_share)
    parameters = models.count_parameters(state.model)
    # Weights, gradients, the optimizer's state and the moving average, as float32.
    copies = 2 + (1 if experiment.optimizer.name == "sgd" else 2) + (experiment.optimizer.ema is not None)
    model_bytes = 4 * parameters * copies
    return Workload(
        batch=batch * accumulate,
        batches=accumulate,
        images=len(dataset.train),
        epochs=experiment.train.epochs,
        parameters=parameters,
        image_seconds=image_seconds + backbone_share * uncached_image_seconds,
        step_seconds=overhead_seconds * accumulate,
        input_seconds=_measure_input_seconds(experiment, dataset),
        flops=flops,
        memory_bytes=model_bytes + activation_bytes * experiment.data.batch,
        # Without the other work, this process would have had its share of the processor too.
        fastest=(1 - busy_share) * min(step_seconds) / full_seconds,
        slowest=max(step_seconds) / full_seconds,
        busy_share=busy_share,
    )


def repeat_until_stable(
    measure: Callable[[], list[StepTime]], clock: Callable[[], float] = time.perf_counter
) -> list[list[StepTime]]:
    """Repeat a measurement until STABLE_WINDOWS in a row agree, or for MAX_MEASURE_SECONDS; those, or else all of them.

    They agree if the slowest step time of each kind is at most STABLE_SPREAD times the fastest.
    """
    rounds, end = [measure()], clock() + MAX_MEASURE_SECONDS
    while len(rounds) < 2 or clock() < end:
        rounds.append(measure())
        last = rounds[-STABLE_WINDOWS:]
        columns = [[one.step_seconds for one in column] for column in zip(*last, strict=True)]
        if len(last) == STABLE_WINDOWS and all(max(column) <= STABLE_SPREAD * min(column) for column in columns):
            return last
    return rounds


def _count_flops_and_activations(state: TrainState, backbone_share: float) -> tuple[float, float]:
    """(FLOPs, bytes of activations) per image of a training step, counted on two images; bytes of the largest size."""
    from torch.utils.flop_counter import FlopCounterMode

    batch = next(loader.batches(state.dataset.train, batch=2, seed=0, epoch=0))
    saved_bytes: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved_bytes[storage.data_ptr()] = storage.nbytes()
        return tensor

    flops, bytes_saved = 0.0, 0
    experiment = state.experiment
    sizes = image_size.list_sizes(experiment.schedule, size=state.dataset.size, epochs=experiment.train.epochs)
    for epoch, share in sizes.values():
        saved_bytes.clear()
        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(record, lambda t: t):
            state.train_step(batch, epoch)
        flops += share * counter.get_total_flops()
        bytes_saved = max(bytes_saved, sum(saved_bytes.values()))
    if state.feature_cache:  # the features are cached now: a second step runs the head alone
        with FlopCounterMode(display=False) as counter:
            state.train_step(batch, 0)
        flops = counter.get_total_flops() + backbone_share * (flops - counter.get_total_flops())
    # Among the saved tensors are the weights.
    activation_bytes = max(0, bytes_saved - 4 * models.count_parameters(state.model)) / 2
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
