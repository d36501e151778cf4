"""Classify images: python jobs/predict.py runs/NAME image.jpg folder/

Prints the predicted class of each image and its most likely classes with their probabilities, and saves all of them in
predictions.parquet.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.errors import DataError

from .cli.command import main
from .cli.verb import EXIT_DONE, EXIT_USER_ERROR, Options, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: tuple[str, ...] = positional("Images, and folders of images.")
    top: int = 5
    """Number of most likely classes to show."""
    maps: Literal["none", "grad_cam", "integrated_gradients", "occlusion"] = "none"
    """Draw heatmaps of the image regions behind each prediction, in maps/."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="predict",
    examples=("runs/NAME image.jpg", "runs/NAME holiday/ garden/*.jpg --top 3"),
    options=PredictOptions,
)


def predict(request: Request) -> int:
    """Predict image by image. An unreadable one is reported, does not stop the others, and makes the exit code 2."""
    from classifier.bundle.predictions import predictor_table, save_predictions
    from classifier.bundle.predictor import Prediction, Predictor, image_files
    from classifier.runs.recorder import result_fields

    from .steps.session import open_run

    options = request.options
    files = image_files(options.images)
    predictor = Predictor(options.run, device=options.device)
    with open_run(VERB.name, options, subject=options.run) as (run, log):
        predictions = []
        for prediction in predictor.predict_files(files, k=options.top):
            if isinstance(prediction, Prediction):
                top = "  ".join(f"{name} {probability:.1%}" for name, probability in prediction.top)
                log.info(f"{prediction.path}: {prediction.describe()}   ({top})")
                predictions.append(prediction)
            else:
                log.warning(prediction.reason)
        if options.maps != "none" and predictions:
            (run.folder / "maps").mkdir()
            for number, heatmap in enumerate(predictor.heatmaps(predictions, options.maps)):
                name = f"{number:03d}-{Path(predictions[number].path or '').stem}.jpg"
                (run.folder / "maps" / name).write_bytes(heatmap)
            log.info(f"heatmaps ({options.maps}): {run.folder / 'maps'}")
        unreadable = len(files) - len(predictions)
        if not predictions:
            raise DataError(f"none of the {unreadable} files could be read as an image")
        save_predictions(predictor_table(predictions, predictor.class_names), run.folder / "predictions.parquet")
        counts = {"predicted": len(predictions), "unreadable": unreadable}
        run.write_result(VERB.name, "finished", **result_fields(options.run, predictor.loaded), **counts)
        log.info(str(run.folder))
    return EXIT_USER_ERROR if unreadable else EXIT_DONE


if __name__ == "__main__":
    main(VERB, predict)
