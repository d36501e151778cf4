"""Pretrain a network on images without labels: python jobs/pretrain.py incoming/

Self-supervised learning: the network learns to recognise an image in random views of it. The result is a file of
weights for `train --model.weights`, best for more images than there are labels for. Labels that are known are not
learned from; they only tell how good the features are.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.config.trust import check_trusted
from classifier.errors import ConfigError

from .cli.command import main
from .cli.console import RunLog
from .cli.environment import command_line
from .cli.interrupts import Interrupts
from .cli.verb import DATA_SETTINGS, EXIT_DONE, EXIT_INTERRUPTED, Options, Request, Verb, positional

if TYPE_CHECKING:
    from classifier.pretraining.images import PretrainingImages
    from classifier.pretraining.loop import Epoch
    from classifier.runs.folder import RunFolder

FILE = "pretrain.json"
"""In the run folder: the method."""
DEFAULTS: dict[str, Any] = {
    "train.epochs": 100,
    "data.batch": 256,
    "optimizer.lr": 2e-3,
    "optimizer.weight_decay": 1e-3,
    "schedule.name": "cosine",
    "schedule.warmup": 0.05,
}


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(Options):
    path: str = positional("The images to learn from; the same as --data.path.", default="")
    method: Literal["auto", "simclr", "byol", "dino"] = "auto"
    """simclr compares each image with all others of the batch, byol and dino with a teacher's view of it. auto: dino
    for transformers, else simclr."""
    resume: str | None = None
    """Go on with this earlier run, with its own settings."""


AUGMENTATION = ("policy", "flip", "rotate", "scale", "shear", "shift", "crop", "brightness", "contrast", "saturation")
VERB = Verb(
    name="pretrain",
    examples=(
        "incoming/ --model.name resnet18 --train.minutes 60",
        "photos/ --method byol --train.epochs 200",
        "--resume runs/NAME",
    ),
    options=PretrainOptions,
    settings=(
        *DATA_SETTINGS,
        *(f"data.{name}" for name in ("path", "batch", "size", "channels", "fit", "max_corrupt", "cache_as")),
        *(f"data.{name}" for name in ("validation", "test", "split_seed", "split_from", "group", "task")),
        *(f"model.{name}" for name in ("name", "weights", "norm", "stem", "drop_path")),
        *(f"train.{name}" for name in ("epochs", "minutes", "precision", "channels_last", "device", "threads")),
        *(f"optimizer.{name}" for name in ("name", "lr", "momentum", "weight_decay", "clip")),
        *(f"schedule.{name}" for name in ("name", "warmup", "final")),
        *(f"augment.{name}" for name in (*AUGMENTATION, "hue", "erase", "strength")),
        *(f"checkpoint.{name}" for name in ("epochs", "minutes", "steps")),
        "seed",
    ),
    common=("model.name", "train.epochs", "train.minutes", "data.batch", "data.size", "optimizer.lr", "seed"),
)


def pretrain(request: Request) -> int:
    """Learn, and save the weights after each epoch."""
    from classifier import models
    from classifier.pretraining.monitor import COLLAPSED_RANK
    from classifier.pretraining.record import WEIGHTS, record_pretraining
    from classifier.runs.recorder import record_failure

    with _open(request) as (run, log, interrupts, experiment, images, method):
        model = _build(experiment, images)
        epochs, last = experiment.train.epochs, None
        try:
            steps = record_pretraining(
                run, experiment, images, model, method, should_stop=lambda: interrupts.stop_requested
            )
            for last in steps:
                log.info(_describe(last, epochs))
        except BaseException as error:
            record_failure(run, VERB.name, error, experiment)
            raise
        if last is None:
            raise ConfigError(f"{run.folder} is finished: start another run, or train on {run.folder / WEIGHTS}")
        fields = {
            "config": experiment.as_dict(),
            "epochs": last.number,
            "parameters": models.count_parameters(model),
            "device": experiment.train.device,
            "images_per_second": last.images_per_second,
            "pretraining": {"method": method, "neighbours": last.neighbours, "rank": last.rank, "weights": WEIGHTS},
        }
        if last.stopped == "asked":
            run.write_result(VERB.name, "stopped", **fields)
            log.next_step("stopped; resume it", command_line(VERB.name, "--resume", run.folder))
            return EXIT_INTERRUPTED
        run.write_result(VERB.name, "finished", **fields)
        if last.rank < COLLAPSED_RANK:
            log.warning(
                f"the features have collapsed to {last.rank:.1f} dimensions, which tell hardly any images apart: try "
                "another --method, a larger --data.batch or a lower --optimizer.lr"
            )
        weights = ("--model.name", experiment.model.name, "--model.weights", run.folder / WEIGHTS)
        log.next_step("train on them", command_line("train", "IMAGES", *weights))
        log.info(str(run.folder))
    return EXIT_DONE


def _describe(epoch: "Epoch", epochs: int) -> str:
    """A line for an epoch."""
    parts = [f"epoch {epoch.number}/{epochs}", f"loss {epoch.loss:.3f}", f"{epoch.rank:.0f} dimensions"]
    if epoch.neighbours is not None:
        parts.append(f"nearest neighbours {epoch.neighbours:.2%}")
    return "  ".join([*parts, f"{epoch.seconds:.1f} s"])


def _build(experiment: Experiment, images: "PretrainingImages") -> Any:
    import torch

    from classifier import models

    torch.manual_seed(experiment.seed)
    channels, size = images.images_NCHW.shape[1], images.images_NCHW.shape[-1]
    model = models.build(experiment.model, classes=2, channels=channels, size=size)
    return model.to(memory_format=torch.channels_last) if experiment.train.channels_last else model


@contextmanager
def _open(
    request: Request,
) -> "Iterator[tuple[RunFolder, RunLog, Interrupts, Experiment, PretrainingImages, Any]]":
    """Open a new run, or with --resume an earlier one, with its images. A user's mistake leaves no folder behind."""
    from classifier.pretraining.images import read_images
    from classifier.runs.data_location import find_data
    from classifier.runs.folder import RunFolder
    from classifier.runtime.threads import use_free_cores

    options, started = request.options, time.monotonic()
    with Interrupts() as interrupts, RunLog() as log:
        run = _resume(request) if options.resume else None
        try:
            with interrupts.nothing_to_save():
                asked = read_experiment(run.folder / "experiment.yaml") if run else _request(request)
                if run:
                    check_trusted(asked.model.name, run.folder / "experiment.yaml")
                    asked = dataclasses.replace(asked, data=find_data(asked.data, run.folder))
                log.begin_phase("reading the images")
                threads = use_free_cores(request.load, log.info, "--train.threads", threads=asked.train.threads)
                with threads:
                    images = read_images(asked.data, log.progress_bar)
                    experiment = asked if run else _resolve(asked, images)
                    method = _choose_method(options.method, experiment, images, run)
                    if run is None:
                        RunFolder.check_new(options.out, options.name)
                        is_named = options.name is not None
                        run = (
                            RunFolder.create(options.out, options.name)
                            if is_named
                            else RunFolder.create_numbered(options.out, experiment.data.path)
                        )
                        _save(run, experiment, images, method)
                    run.set_result_aside()
                    run.started = started
                    log.attach(run.folder / "run.log")
                    count = len(images.images_NCHW)
                    shape = "x".join(map(str, (*images.images_NCHW.shape[2:], images.images_NCHW.shape[1])))
                    log.info(f"{images.name}: {count:,} images, {shape}")
                    for finding in images.findings:
                        log.warning(f"note: {finding}")
                    log.info(
                        f"{experiment.model.name} by {method}, {experiment.train.epochs} epochs of batch "
                        f"{experiment.data.batch}, {experiment.train.precision} on {experiment.train.device}"
                    )
                    yield run, log, interrupts, experiment, images, method
        finally:
            if run is not None:
                run.close()


def _request(request: Request) -> Experiment:
    experiment = Experiment().override_all(DEFAULTS | request.changes)
    check_trusted(experiment.model.name, "")
    return experiment


def _resolve(experiment: Experiment, images: "PretrainingImages") -> Experiment:
    """Fill in what is chosen by the images and the machine."""
    import torch

    from classifier.pretraining.views import choose_augment
    from classifier.runtime.distributed import pick_device
    from classifier.training.resolve import choose_precision

    channels, size = images.images_NCHW.shape[1], images.images_NCHW.shape[-1]
    device = pick_device(experiment.train.device)
    augment = choose_augment(experiment.augment, kind=images.kind, channels=channels, size=size)
    changes = {f"augment.{name}": value for name, value in vars(augment).items()}
    changes |= {
        "data.size": size,
        "data.channels": channels,
        "data.batch": min(experiment.data.batch, len(images.images_NCHW)),
        "train.device": str(device) if experiment.train.device != "auto" else device.type,
        "train.precision": choose_precision(experiment.train.precision, device),
        "train.threads": experiment.train.threads or torch.get_num_threads(),
    }
    return experiment.override_all(changes)


def _choose_method(asked: str, experiment: Experiment, images: "PretrainingImages", run: "RunFolder | None") -> Any:
    from classifier.config.documents import read_json
    from classifier.pretraining.methods import MethodDocument, choose_method

    if run is not None:
        return read_json(run.folder / FILE, MethodDocument, "start a new run")["method"]
    return choose_method(_build(experiment, images)) if asked == "auto" else asked


def _save(run: "RunFolder", experiment: Experiment, images: "PretrainingImages", method: str) -> None:
    from classifier.runs.data_location import write_location
    from classifier.storage.atomic import write_atomically

    run.write_experiment(experiment)
    write_location(run.folder, experiment.data, images.fingerprint)
    write_atomically(run.folder / FILE, json.dumps({"method": method}) + "\n")


def _resume(request: Request) -> "RunFolder":
    from classifier.runs.folder import RunFolder

    options = request.options
    if request.changes or options.name or options.method != "auto":
        raise ConfigError("a run that is resumed keeps its settings: leave all but --resume out")
    run = RunFolder.resume(options.resume)
    if not (run.folder / FILE).is_file():
        run.close()
        raise ConfigError(f"{run.folder} is not a pretraining: resume it by the verb that began it")
    return run


if __name__ == "__main__":
    main(VERB, pretrain)
