"""Pretrain a network on images without labels: python jobs/pretrain.py incoming/

Self-supervised learning: the network learns to recognise an image in random views of it. The result is a file of
weights for `train --model.weights`, best for more images than there are labels for. Labels that are known are not
learned from; they only tell how good the features are.
"""

import dataclasses
import json
import sys
import time
from contextlib import ExitStack
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
    from collections.abc import Iterator, Mapping

    from classifier.pretraining.images import PretrainingImages
    from classifier.pretraining.loop import Epoch
    from classifier.pretraining.methods import Name
    from classifier.runs.folder import RunFolder

DEFAULTS: dict[str, Any] = {
    "train.epochs": 100,
    "data.batch": 256,
    "schedule.name": "cosine",
    "schedule.warmup": 0.05,
}
_ADAMW = {"optimizer.name": "adamw", "optimizer.lr": 2e-3, "optimizer.weight_decay": 1e-3}
_MUON = {"optimizer.name": "muon", "optimizer.lr": 0.02, "optimizer.momentum": 0.95, "optimizer.weight_decay": 0.0}


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

    with Interrupts() as interrupts, RunLog() as log, ExitStack() as cleanup:
        with interrupts.nothing_to_save():
            work = (_resume if request.options.resume else _start)(request, log, cleanup)
        run, experiment, method = work.run, work.experiment, work.method
        for line in work.describe():
            log.info(line)
        for finding in work.images.findings:
            log.warning(f"note: {finding}")
        model, stopped = _build(experiment, work.images), None
        try:
            for epoch in record_pretraining(
                run, experiment, work.images, model, method, should_stop=lambda: interrupts.stop_requested
            ):
                log.info(_describe(epoch, experiment.train.epochs))
                stopped = epoch.stopped
        except BaseException as error:
            record_failure(run, VERB.name, error, experiment)
            raise
        last = run.history()[-1]  # perhaps of the process before, which was killed after its last checkpoint
        fields = {
            "config": experiment.as_dict(),
            "epochs": last["epoch"],
            "parameters": models.count_parameters(model),
            "device": experiment.train.device,
            "images_per_second": last["images_per_second"],
            "pretraining": {"method": method, "weights": WEIGHTS, **{key: last[key] for key in ("neighbours", "rank")}},
        }
        run.write_result(VERB.name, "stopped" if stopped == "asked" else "finished", **fields)
        if stopped == "asked":
            log.next_step("stopped; resume it", command_line(VERB.name, "--resume", run.folder))
            log.info(str(run.folder))
            return EXIT_INTERRUPTED
        if last["rank"] < COLLAPSED_RANK:
            log.warning(
                f"the features have collapsed to {last['rank']:.1f} dimensions, which tell hardly any images apart: "
                "try another --method, a larger --data.batch or a lower --optimizer.lr"
            )
        weights = ("--model.name", experiment.model.name, "--model.weights", run.folder / WEIGHTS)
        log.next_step("train on them", command_line("train", "IMAGES", *weights))
        log.info(str(run.folder))
    return EXIT_DONE


@dataclass(frozen=True, eq=False)
class _Work:
    """A run, opened, with its images. experiment: resolved."""

    run: "RunFolder"
    experiment: Experiment
    images: "PretrainingImages"
    method: "Name"

    def describe(self) -> "Iterator[str]":
        """What is about to be learned."""
        count, channels, height, width = self.images.images_NCHW.shape
        yield f"{self.images.name}: {count:,} images, {height}x{width}x{channels}"
        train = self.experiment.train
        yield (
            f"{self.experiment.model.name} by {self.method}, {train.epochs} epochs of batch "
            f"{self.experiment.data.batch}, {train.precision} on {train.device}"
        )


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


def _start(request: Request, log: RunLog, cleanup: ExitStack) -> _Work:
    """A new run. A user's mistake leaves no folder behind."""
    from classifier.bundle.document import PRETRAINING
    from classifier.pretraining.methods import choose_method
    from classifier.runs.data_location import write_location
    from classifier.runs.folder import RunFolder
    from classifier.storage.atomic import write_atomically

    options, started = request.options, time.monotonic()
    RunFolder.check_new(options.out, options.name)
    asked = Experiment().override_all(DEFAULTS | request.changes)
    check_trusted(asked.model.name, "")
    images = _read(request, asked, log, cleanup)
    experiment = _resolve(asked, images)
    method = choose_method(_build(experiment, images)) if options.method == "auto" else options.method
    experiment = experiment.override_all(choose_optimizer(method, request.changes))
    if options.name:
        run = RunFolder.create(options.out, options.name)
    else:
        run = RunFolder.create_numbered(options.out, experiment.data.path)
    cleanup.callback(run.close)
    run.started = started
    log.attach(run.folder / "run.log")
    run.write_experiment(experiment)
    write_location(run.folder, experiment.data, images.fingerprint)
    write_atomically(run.folder / PRETRAINING, json.dumps({"method": method}) + "\n")
    return _Work(run, experiment, images, method)


def _resume(request: Request, log: RunLog, cleanup: ExitStack) -> _Work:
    """An earlier run that has not finished, with its own settings."""
    from classifier.bundle.document import PRETRAINING
    from classifier.config.documents import read_json
    from classifier.pretraining.methods import MethodDocument
    from classifier.pretraining.record import WEIGHTS
    from classifier.runs.data_location import find_data
    from classifier.runs.folder import RunFolder, read_result

    options = request.options
    if request.changes or options.name or options.method != "auto":
        raise ConfigError("a run that is resumed keeps its settings: leave all but --resume out")
    run = RunFolder.resume(options.resume)
    cleanup.callback(run.close)
    if not (run.folder / PRETRAINING).is_file():
        raise ConfigError(f"{run.folder} is not a pretraining: resume it by the verb that began it")
    if (run.folder / "result.json").exists() and read_result(run.folder)["status"] == "finished":
        raise ConfigError(f"{run.folder} is finished: start another run, or train on {run.folder / WEIGHTS}")
    experiment = read_experiment(run.folder / "experiment.yaml")
    check_trusted(experiment.model.name, run.folder / "experiment.yaml")
    experiment = dataclasses.replace(experiment, data=find_data(experiment.data, run.folder))
    images = _read(request, experiment, log, cleanup)
    method = read_json(run.folder / PRETRAINING, MethodDocument, "start a new run")["method"]
    run.set_result_aside()
    log.attach(run.folder / "run.log")
    return _Work(run, experiment, images, method)


def choose_optimizer(method: "Name", given: "Mapping[str, Any]") -> dict[str, Any]:
    """Return the settings of the optimizer that were not given: muon's for SimCLR, where it learned more in the same
    time (LOG.md), else adamw's, which other optimizers get too."""
    name = given.get("optimizer.name", "muon" if method == "simclr" else "adamw")
    settings = _MUON if name == "muon" else _ADAMW
    return {key: value for key, value in settings.items() if key not in given}


def _read(request: Request, experiment: Experiment, log: RunLog, cleanup: ExitStack) -> "PretrainingImages":
    from classifier.pretraining.images import read_images
    from classifier.runtime.threads import use_free_cores

    threads = experiment.train.threads
    cleanup.enter_context(use_free_cores(request.load, log.info, "--train.threads", threads=threads))
    log.begin_phase("reading the images")
    return read_images(experiment.data, log.progress_bar)


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


if __name__ == "__main__":
    main(VERB, pretrain)
