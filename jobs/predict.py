"""Classify images: python jobs/predict.py runs/NAME image.jpg folder/

Prints the predicted class of each image and its most likely classes with their probabilities. --name or --out also
saves them, in predictions.parquet of a run folder; --maps, whose heatmaps need a place, makes one too. --answers is for
many images: it saves a part of them at a time, and the same command goes on after a crash.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.experiment import Experiment
from classifier.config.fields import PositiveInt
from classifier.errors import ConfigError, DataError
from classifier.runtime.cpu import available_cores
from classifier.runtime.threads import choose_threads, limit_to_free_cores

from .cli.command import main
from .cli.verb import EXIT_DONE, EXIT_USER_ERROR, OptionalRunOptions, Request, Verb, positional

if TYPE_CHECKING:
    from classifier.answers.listing import ImageListing
    from classifier.bundle.predictor import Predictor

# Limits of an image, which a bundle does not choose.
LIMITS = ("data.max_pixels", "data.max_bytes", "data.max_seconds")
WORKERS = ("workers.count", "workers.cpus", "workers.gpus", "workers.wait")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(OptionalRunOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: tuple[str, ...] = positional(
        "Images, folders, patterns, archives, tar shards, Parquet, lists (.csv, .txt, .jsonl), s3://..., and - for "
        "paths on standard input, one per line."
    )
    answers: str | None = None
    """Save the answers here, a folder or s3://..., in parts; the same command goes on after a crash."""
    top: PositiveInt = 5
    """Number of most likely classes to show."""
    format: Literal["text", "csv", "jsonl", "parquet"] | None = None
    """Print text for people (the default), or a row per image and nothing else on stdout: csv, or jsonl. Of --answers:
    parquet (the default), csv or jsonl."""
    null: bool = False
    """Paths on standard input end with NUL, as find -print0 writes them."""
    maps: Literal["none", "grad_cam", "integrated_gradients", "occlusion"] = "none"
    """Draw heatmaps of the image regions behind each prediction, in maps/ of a run folder."""
    probabilities: bool = False
    """Answers have the probabilities of all classes, too."""
    features: bool = False
    """Answers have the inputs of the model's last layer, too (by torch)."""
    part_size: PositiveInt = 10_000
    """Images whose answers are in one file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What computes: an export, or torch. auto: torch on a GPU, else an export to ONNX if there is one."""


VERB = Verb(
    name="predict",
    examples=(
        "runs/NAME image.jpg",
        "runs/NAME holiday/ garden/*.jpg --top 3",
        "runs/NAME - --format csv < paths.txt > predictions.csv",
        "runs/NAME shards/ --answers s3://bucket/answers",
    ),
    options=PredictOptions,
    settings=(*LIMITS, "data.outside", *WORKERS),
)


def predict(request: Request) -> int:
    """Predict image by image. An unreadable one is reported, does not stop the others, and makes the exit code 2."""
    from classifier.answers.listing import ImageListing
    from classifier.answers.path_stream import read_paths
    from classifier.bundle import document

    options = request.options
    stdin: Any = sys.stdin.buffer
    settings = Experiment().override_all(request.changes)
    schema = document.read(options.run).columns
    listing = ImageListing(
        options.images,
        functools.partial(read_paths, stdin, null=options.null),
        outside=settings.data.outside,
        columns=schema.names if schema else (),
    )
    limits = {name.removeprefix("data."): value for name, value in request.changes.items() if name in LIMITS}
    engine = "torch" if options.features or options.maps != "none" else options.engine
    predictor = {"path": options.run, "device": options.device, "engine": engine} | limits
    if options.answers or "://" in (options.out or ""):
        return _save_answers(request, listing, predictor, settings)
    _refuse(request, ("probabilities", "features", "part_size", *WORKERS), "needs --answers: give that, too")
    if options.format == "parquet":
        raise ConfigError("--format parquet needs --answers: give that, or --out for a run with predictions.parquet")
    return _print_predictions(request, listing, predictor)


def _save_answers(request: Request, listing: "ImageListing", predictor: dict[str, Any], settings: Experiment) -> int:
    """Answer into parts, and print where they are."""
    from .cli.console import RunLog
    from .steps.answers import AnswerOptions, answer_in_parts

    options = request.options
    _refuse(request, ("name", "maps"), "is of a run, which --answers does not make: give only one of them")
    if options.answers and options.out:
        raise ConfigError("--out is of a run, which --answers does not make: give only one of them")
    if options.format == "text":
        raise ConfigError("--format text is for the terminal: give parquet, csv or jsonl")
    with RunLog(Path(os.devnull)) as log:
        asked = AnswerOptions(
            path=options.answers or options.out,
            inputs=options.images,
            format=options.format or "parquet",
            part_size=options.part_size,
            top=options.top,
            probabilities=options.probabilities,
            features=options.features,
            predictor=predictor,
            workers=settings.workers,
        )
        counts = answer_in_parts(listing, asked, log, lambda: _open_predictor(request, predictor, log.info))
        if not counts.images:
            log.warning("standard input has listed no images")
        log.info(asked.path)
    return EXIT_USER_ERROR if counts.unreadable else EXIT_DONE


def _print_predictions(request: Request, listing: "ImageListing", arguments: dict[str, Any]) -> int:
    """Print a row per image, and save them in a run if that is asked for."""
    from classifier.bundle.predictions import PredictionsWriter
    from classifier.bundle.predictor import Unreadable

    from .steps.output_run import open_run_on_request
    from .steps.prediction_rows import open_printer

    options, notes, lines = request.options, listing.notes, list[str]()
    predictor = _open_predictor(request, arguments, lines.append)
    names, maps = predictor.class_names, None if options.maps == "none" else options.maps
    data_path = predictor.bundle.experiment["data"]["path"]
    with open_run_on_request(options, data_path, is_needed=bool(maps)) as (run, log):
        say = log.warning if options.format in ("csv", "jsonl") else log.info  # nothing but rows on stdout
        for line in lines:
            say(line)
        while notes:
            log.warning(f"note: {notes.pop(0)}")
        has_labels = predictor.task == "multilabel"
        print_row = open_printer(options.format or "text", log, min(options.top, len(names)), has_labels=has_labels)
        named = ((one.id, one.file, one.row) for one in listing)
        predicted = unreadable = 0
        with PredictionsWriter(run.folder / "predictions.parquet", names) if run else contextlib.nullcontext() as table:
            for row in predictor.predict_named(named, k=options.top, maps=maps):
                print_row(row)
                if isinstance(row, Unreadable):
                    unreadable += 1
                    continue
                if run and row.heatmap and row.path:
                    (run.folder / "maps").mkdir(exist_ok=True)
                    name = f"{predicted:03d}-{Path(row.path).stem[:50]}.jpg"
                    (run.folder / "maps" / name).write_bytes(row.heatmap)
                if table:
                    table.append(row)
                predicted += 1
            if unreadable and not predicted:
                raise DataError(f"none of the {unreadable:,} images could be predicted: see the error of each")
        for note in notes:
            log.warning(f"note: {note}")
        if not predicted:
            log.warning("standard input has listed no images")
        if run:
            from classifier.runs.recorder import result_fields

            if maps and predicted:
                say(f"heatmaps ({maps}): {run.folder / 'maps'}")
            counts = {"predicted": predicted, "unreadable": unreadable}
            run.write_result(VERB.name, "finished", **result_fields(options.run, predictor.loaded), **counts)
            say(str(run.folder))
    return EXIT_USER_ERROR if unreadable else EXIT_DONE


def _open_predictor(request: Request, arguments: dict[str, Any], say: Callable[[str], None]) -> "Predictor":
    """Open the model to compute on the cores that are free, and say so if those are not all."""
    from classifier.bundle.predictor import Predictor

    threads, line = available_cores(), None
    if (named := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        threads = int(named)
    else:
        threads, line = limit_to_free_cores(threads, request.load, "OMP_NUM_THREADS")
    predictor = Predictor(**arguments, threads=threads)
    if predictor.engine.description.startswith("torch"):  # it knows what libraries and launchers have set, too
        import torch

        threads, line = choose_threads(request.load, "OMP_NUM_THREADS")
        torch.set_num_threads(threads)
    if line:
        say(line)
    return predictor


def _refuse(request: Request, names: Sequence[str], why: str) -> None:
    """ConfigError for an option or setting that was given, of these."""
    defaults = {field.name: field.default for field in dataclasses.fields(PredictOptions)}
    own = {name for name in names if name in defaults and getattr(request.options, name) != defaults[name]}
    if given := [name for name in names if name in own or name in request.changes]:
        raise ConfigError(f"--{given[0]} {why}")


if __name__ == "__main__":
    main(VERB, predict)
