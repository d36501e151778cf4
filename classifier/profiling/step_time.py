"""What an experiment costs here: seconds a training step, milliseconds a prediction, and the batch that suits best."""

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

# The first runs also prepare kernels and memory.
WARM, MEASURED = 2, 5
# Batches whose speeds differ by less than this are taken as equally fast.
EQUAL = 0.03
LARGEST_BATCH = 4096
# The least share of a step's time that its images take, where noise hides it.
MIN_IMAGE_SHARE = 0.01
# Seconds of training that a forecast of hours goes by.
WATCHED = 4.0


@dataclass(frozen=True)
class StepTime:
    """What a training takes on this machine, in seconds."""

    step: float
    """One update."""
    image: float = 0.0
    """Where a frozen backbone's views are kept (augment.views): to see one image, beside the updates."""


def measure_step_time(experiment: Experiment, dataset: Dataset, steps: int = 3, watched: float = 0.0) -> StepTime:
    """What a resolved experiment takes: the quickest of a few updates after a first one.

    What else the machine does can only make a step slower, and would pass before the training does. watched: seconds
    for which more steps are made, of other images each, as in a training; then their median counts.
    """
    thaws, epochs = experiment.model.freeze_epochs, experiment.train.epochs
    if experiment.views and thaws is not None:
        frozen = measure_step_time(experiment.override("model.freeze_epochs", None), dataset, steps, watched)
        thawed = measure_step_time(experiment.override("model.freeze", "none"), dataset, steps, watched)
        share = min(1.0, thaws / epochs)
        return dataclasses.replace(frozen, step=share * frozen.step + (1 - share) * thawed.step)
    training = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
    cpu.setup(training.device.type)  # as trainings do
    training.begin_epoch(0)
    size, seed = training.batch, experiment.seed
    every = (loader.batches(dataset.train, batch=size, seed=seed, epoch=epoch) for epoch in itertools.count())
    middle = statistics.median if watched else min
    seconds, again, epoch = [], [], -1
    decodes = decodes_on_access(dataset.train.images_NCHW)
    for batch in loader.prefetch(itertools.chain.from_iterable(every), decodes=decodes):
        epoch += batch.step == 0
        seconds.append(_seconds_to_update(training, batch, epoch))  # reading is told apart
        if training.feature_cache:
            again.append(_seconds_to_update(training, batch, epoch))
        if len(seconds) > steps and sum(seconds[1:]) >= watched:
            break
    if not again:
        return StepTime(middle(seconds[1:]))
    step = middle(again[1:])
    # Not the quickest: what is seen at the end of a search is seen at the speed that the machine has on the whole.
    return StepTime(step, max(0.0, statistics.median(seconds[1:]) - step) / size)


def _seconds_to_update(training: TrainState, batch: loader.Batch, epoch: int) -> float:
    began = time.perf_counter()
    training.train_step(batch, epoch)
    training.sums.tolist()  # waits for the device
    return time.perf_counter() - began


def measure_step_seconds(experiment: Experiment, dataset: Dataset) -> float:
    """Seconds that one update of a resolved experiment takes."""
    return measure_step_time(experiment, dataset).step


def measure_prediction(experiment: Experiment, dataset: Dataset, batch: int) -> dict[str, float]:
    """`latency` of one image alone and `latency_batch` of each in a batch, in milliseconds, and `size` in parameters.

    Of a resolved experiment's model, untrained, with all that prediction does to an image; measure with nothing else
    running. The median of several.
    """
    device = pick_device(experiment.train.device)
    scorer = Scorer.from_experiment(experiment, dataset, device)
    model = scorer.prepare_model(build_model(experiment, dataset))
    images_NCHW = dataset.train.images_NCHW[:batch]
    return {
        "latency": 1000 * _seconds(scorer, model, images_NCHW[:1]),
        "latency_batch": 1000 * _seconds(scorer, model, images_NCHW) / len(images_NCHW),
        "size": float(models.parameter_count(model)),
    }


def find_batch_size(experiment: Experiment, dataset: Dataset) -> tuple[int, dict[int, float]]:
    """The fastest batch that fits into memory, of equally fast ones the largest; and images a second of all tried.

    Doubles from 8 until memory or the training images end, or twice in a row it gets slower by a tenth.
    """
    speeds: dict[int, float] = {}
    batch, slower = 8, 0
    limit = min(LARGEST_BATCH, len(dataset.train) // experiment.optimizer.accumulate)
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
    return max(size for size, speed in speeds.items() if speed >= (1 - EQUAL) * fastest), speeds


def measure_workload(experiment: Experiment, dataset: Dataset, beside: int = 0) -> Workload:
    """A resolved experiment as `scaling` wants it, measured on this machine with train.threads threads.

    beside: how many other workers will compute on the same processor, whose clock and caches they share.
    """
    from torch.utils.flop_counter import FlopCounterMode

    batch = experiment.data.batch * experiment.optimizer.accumulate
    small, before = max(1, batch // 4), torch.get_num_threads()
    torch.set_num_threads(experiment.train.threads or before)
    try:
        with _busy(beside, torch.get_num_threads()):
            whole = measure_step_time(experiment, dataset, watched=WATCHED)
            fewer = experiment.override_all({"data.batch": small, "optimizer.accumulate": 1})
            part = measure_step_time(fewer, dataset, watched=WATCHED)
    finally:
        torch.set_num_threads(before)
    image_seconds, overhead_seconds = split_step_seconds(whole.step, part.step, batch=batch, small_batch=small)
    training = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
    training.begin_epoch(0)
    few = next(loader.batches(dataset.train, batch=2, seed=0, epoch=0))
    saved: dict[int, int] = {}

    def see(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(see, lambda t: t):
        training.train_step(few, 0)
    flops = float(counter.get_total_flops())
    seen = 1.0  # the share of the epochs in which a frozen backbone sees the images
    if training.feature_cache:
        seen = min(1.0, training.feature_cache.views / experiment.train.epochs)
        with FlopCounterMode(display=False) as counter:
            training.train_step(few, 0)
        flops = counter.get_total_flops() + seen * (flops - counter.get_total_flops())
    parameters = models.parameter_count(training.model)
    # Weights, gradients, and what the optimizer keeps of each; activations grow with the images.
    kept = 4 * parameters * (2 if experiment.optimizer.name == "sgd" else 3) + 4 * parameters
    activations = max(0, sum(saved.values()) - 4 * parameters) / 2
    return Workload(
        batch=batch,
        images=len(dataset.train),
        epochs=experiment.train.epochs,
        parameters=parameters,
        image_seconds=image_seconds + seen * whole.image,
        step_seconds=overhead_seconds,
        input_seconds=_input_seconds(experiment, dataset),
        flops=flops / len(few.labels_N),
        memory_bytes=kept + activations * experiment.data.batch,
    )


def split_step_seconds(
    seconds: float, small_batch_seconds: float, *, batch: int, small_batch: int
) -> tuple[float, float]:
    """(seconds per image, seconds per step beside), from the step times of a batch and of a smaller one.

    On a busy machine the smaller batch may have been the slower one: images still take MIN_IMAGE_SHARE of the step.
    """
    most = seconds / batch
    if batch <= small_batch:
        return most, 0.0
    slope = (seconds - small_batch_seconds) / (batch - small_batch)
    image_seconds = min(max(slope, MIN_IMAGE_SHARE * most), most)
    return image_seconds, max(0.0, seconds - image_seconds * batch)


@contextlib.contextmanager
def _busy(count: int, threads: int) -> Iterator[None]:
    """So many others that multiply matrices with as many threads each, which leaves Python's lock to who measures."""
    over = threading.Event()

    def work() -> None:
        torch.set_num_threads(threads)  # OpenMP keeps it by thread
        matrix = torch.rand(768, 768)
        while not over.is_set():
            torch.mm(matrix, matrix)

    others = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        over.set()
        for other in others:
            other.join()


def _input_seconds(experiment: Experiment, dataset: Dataset) -> float:
    """To gather an image into a batch, on one core."""
    began, count = time.perf_counter(), 0
    for batch in loader.batches(dataset.train, batch=experiment.data.batch, seed=0, epoch=0):
        count += len(batch.labels_N)
        if count > 10_000:
            break
    return (time.perf_counter() - began) / count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ended; on the CPU that is a RuntimeError of the allocator."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(
        words in str(error) for words in ("not enough memory", "out of memory", "can't allocate memory")
    )


def _seconds(scorer: Scorer, model: torch.nn.Module, images_NCHW: torch.Tensor) -> float:
    seconds = []
    for _ in range(WARM + MEASURED):
        began = time.perf_counter()
        scorer.predict_log_probabilities(model, images_NCHW).tolist()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM:])
