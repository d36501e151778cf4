"""Classify images: python jobs/predict.py runs/NAME image.jpg folder/

Prints the predicted class of each image and its most likely classes with their probabilities. --name or --out also
saves them, in predictions.parquet of a run folder; --maps, whose heatmaps need a place, makes one too.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveInt
from classifier.errors import DataError

from .cli.command import main
from .cli.verb import EXIT_DONE, EXIT_USER_ERROR, OptionalRunOptions, Request, Verb, positional

# Limits of an image, which a bundle does not choose.
LIMITS = ("data.max_pixels", "data.max_bytes", "data.max_seconds")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(OptionalRunOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: tuple[str, ...] = positional("Images, folders of images, and - for paths on standard input, one per line.")
    top: PositiveInt = 5
    """Number of most likely classes to show."""
    format: Literal["text", "csv", "jsonl"] = "text"
    """Print text for people, or a row per image and nothing else on stdout: CSV, or JSON Lines."""
    null: bool = False
    """Paths on standard input end with NUL, as find -print0 writes them."""
    maps: Literal["none", "grad_cam", "integrated_gradients", "occlusion"] = "none"
    """Draw heatmaps of the image regions behind each prediction, in maps/ of a run folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="predict",
    examples=(
        "runs/NAME image.jpg",
        "runs/NAME holiday/ garden/*.jpg --top 3",
        "runs/NAME - --format csv < paths.txt > predictions.csv",
    ),
    options=PredictOptions,
    settings=LIMITS,
)


def predict(request: Request) -> int:
    """Predict image by image. An unreadable one is reported, does not stop the others, and makes the exit code 2."""
    from classifier.bundle.predictions import PredictionsWriter
    from classifier.bundle.predictor import Predictor, Unreadable
    from classifier.runs.recorder import result_fields
    from classifier.runtime.threads import use_free_cores

    from .steps.image_list import find_images
    from .steps.output_run import open_run_on_request
    from .steps.prediction_rows import open_printer

    options = request.options
    files, notes = find_images(options.images, null=options.null)
    limits = {name.removeprefix("data."): value for name, value in request.changes.items()}
    predictor = Predictor(options.run, device=options.device, **limits)
    names, maps = predictor.class_names, None if options.maps == "none" else options.maps
    data_path = predictor.bundle.experiment["data"]["path"]
    with contextlib.ExitStack() as stack:
        run, log = stack.enter_context(open_run_on_request(options, data_path, is_needed=bool(maps)))
        say = log.info if options.format == "text" else log.warning  # nothing but rows on stdout
        stack.enter_context(use_free_cores(request.load, say, "OMP_NUM_THREADS"))
        for note in notes:
            log.warning(f"note: {note}")
        print_row = open_printer(options.format, log, min(options.top, len(names)))
        predicted = unreadable = 0
        with PredictionsWriter(run.folder / "predictions.parquet", names) if run else contextlib.nullcontext() as table:
            for row in predictor.predict_files(files, k=options.top, maps=maps):
                print_row(row)
                if isinstance(row, Unreadable):
                    unreadable += 1
                    continue
                if run and row.heatmap and row.path:
                    (run.folder / "maps").mkdir(exist_ok=True)
                    (run.folder / "maps" / f"{predicted:03d}-{row.path.stem[:50]}.jpg").write_bytes(row.heatmap)
                if table:
                    table.append(row)
                predicted += 1
            if unreadable and not predicted:
                raise DataError(f"none of the {unreadable} files could be read as an image")
        if not predicted:
            log.warning("standard input has listed no images")
        if run:
            if maps and predicted:
                say(f"heatmaps ({maps}): {run.folder / 'maps'}")
            counts = {"predicted": predicted, "unreadable": unreadable}
            run.write_result(VERB.name, "finished", **result_fields(options.run, predictor.loaded), **counts)
            say(str(run.folder))
    return EXIT_USER_ERROR if unreadable else EXIT_DONE


if __name__ == "__main__":
    main(VERB, predict)
