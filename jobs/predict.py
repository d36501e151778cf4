"""Name what is in pictures: python jobs/predict.py runs/NAME picture.jpg folder/

Prints the class, its probability and the five likeliest of each picture, and saves them all in predictions.parquet.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.errors import DataError  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import EXIT_DONE, EXIT_MISTAKE, Options, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    images: tuple[str, ...] = positional("Pictures, and folders of pictures.")
    top: int = 5
    """How many of the likeliest classes to show."""
    maps: Literal["none", "grad_cam", "integrated_gradients", "occlusion"] = "none"
    """Draw where in each picture the model saw its answer, in maps/."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="predict",
    summary="Name what is in pictures: class, probability, and the likeliest others.",
    examples=("predict.py runs/NAME picture.jpg", "predict.py runs/NAME holiday/ garden/*.jpg --top 3"),
    options=PredictOptions,
)


def predict(request: Request) -> int:
    """Answer picture by picture; a broken one is told and does not stop the others, but makes the exit code 2."""
    from classifier.bundle.predictions import predictor_table, save_predictions
    from classifier.bundle.predictor import Prediction, Predictor, image_files
    from classifier.runs.recorder import result_fields
    from jobs.steps import session

    options = request.options
    files = image_files(options.images)
    predictor = Predictor(options.run, device=options.device)
    with session.open_run(VERB.name, options, subject=options.run) as (run, journal):
        answers = []
        for answer in predictor.predict_files(files, k=options.top):
            if isinstance(answer, Prediction):
                likeliest = "  ".join(f"{name} {probability:.1%}" for name, probability in answer.top)
                journal.info(f"{answer.path}: {answer.describe()}   ({likeliest})")
                answers.append(answer)
            else:
                journal.warning(answer.reason)
        if options.maps != "none" and answers:
            (run.folder / "maps").mkdir()
            for number, drawn in enumerate(predictor.heatmaps(answers, options.maps)):
                name = f"{number:03d}-{answers[number].path.stem}.jpg"
                (run.folder / "maps" / name).write_bytes(drawn)
            journal.info(f"where it saw them ({options.maps}): {run.folder / 'maps'}")
        broken = len(files) - len(answers)
        if not answers:
            raise DataError(f"none of the {broken} files could be read as a picture")
        save_predictions(predictor_table(answers, predictor.class_names), run.folder / "predictions.parquet")
        run.write_result(VERB.name, "finished", **result_fields(options.run), predicted=len(answers), unreadable=broken)
        journal.info(str(run.folder))
    return EXIT_MISTAKE if broken else EXIT_DONE


if __name__ == "__main__":
    main(VERB, predict)
