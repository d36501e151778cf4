"""Draw a learning curve (would more images help?): python jobs/curve.py photos/

Trains on nested subsets of the training images, doubling in size, for the same number of steps, and fits a power law to
the validation error. Predicts the gain from twice the images, and tells overfitting from underfitting.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveFloat, PositiveInt

from .cli.command import main
from .cli.verb import SECTIONS, ExperimentOptions, Request, Verb


@dataclass(frozen=True, kw_only=True)
class CurveOptions(ExperimentOptions):
    sizes: PositiveInt = 5
    """Number of training set sizes, each twice the previous one."""
    largest: PositiveFloat = 1.0
    """Largest size, as a fraction of the training images."""
    repeats: PositiveInt = 1
    """Number of trainings per size, each on another random subset."""
    resume: str | None = None
    """Resume this earlier curve."""


VERB = Verb(
    name="curve",
    examples=(
        "# the built-in digits",
        "photos/ --sizes 6",
    ),
    options=CurveOptions,
    sections=SECTIONS,
    common=("train.epochs", "model.name", "model.weights", "seed"),
)


def curve(request: Request) -> int:
    """Train at each size, fit the power law, and interpret it."""
    from classifier.report.numbers import format_accuracy

    from .studies import learning_curve, parallel_runs, study

    with study.open_study(VERB.name, request, ("sizes", "largest", "repeats"), sets_aside=True) as curve:
        experiment, dataset = curve.experiment, curve.dataset
        runs = learning_curve.plan_runs(dataset, experiment, **curve.options)
        trainings = parallel_runs.train_runs(
            experiment, runs, curve.folder / "sizes", log=curve.log, should_stop=curve.stop_requested
        )
        for run, result in trainings:
            accuracy = format_accuracy(result["validation"], 2)
            curve.info(f"trained on {run.changes['data.limit']:,} images: validation accuracy {accuracy}")
        if curve.stop_requested():
            return curve.finish_interrupted()
        points = learning_curve.summarize(curve.folder, runs, len(dataset.train), len(dataset.validation))
        curve.info(learning_curve.make_table(points))
        for line in points["says"]:
            curve.info(line)
        return curve.finish(curve=points)


if __name__ == "__main__":
    main(VERB, curve)
