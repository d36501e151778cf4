"""Cross-validate an experiment: python jobs/crossval.py --data.path photos/ --folds 5

Every image is tested once, by a model that never saw it: k trainings, each with another fold left out, side by side on
Ray. Copies of an image, and images of one data.group, lie in one fold. Test images that came with the data stay out.
With --search true a search runs in each fold: what is measured is the whole procedure (nested cross-validation).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import PositiveInt  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import SLICES, BeginningOptions, Request, Verb  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(BeginningOptions):
    folds: PositiveInt = 5
    """How many parts, each of which is left out once."""
    repeats: PositiveInt = 1
    """How often the folds are drawn anew."""
    search: bool = False
    """Search in each fold, by the settings of search.*, and test what it finds."""
    resume: str | None = None
    """Go on with this earlier cross-validation."""


VERB = Verb(
    name="crossval",
    summary="Cross-validate: test every image by a model that never saw it; mean and deviation over the folds.",
    examples=(
        "crossval.py --folds 5                       # the embedded digits",
        "crossval.py --data.path photos/ --folds 5 --repeats 3",
        "crossval.py --data.path photos/ --search true --search.minutes 3",
        "crossval.py --resume runs/NAME",
    ),
    options=CrossvalOptions,
    slices=("search", *SLICES),
)


def crossval(request: Request) -> int:
    """Train and test each fold, and tell the mean."""
    from jobs.studies import cross_validation, parallel_runs, study

    first = {"data.folds": request.options.folds, "data.fold": 0}
    with study.open_study(VERB.name, request, keep=("folds", "repeats", "search"), first=first) as family:
        asked = family.options
        members = cross_validation.plan_runs(asked["folds"], asked["repeats"], family.experiment.data.split_seed)
        way = parallel_runs.search_runs if asked["search"] else parallel_runs.train_runs
        for member, result in way(family.experiment, members, family.folder / "folds", asked=family.stop_requested):
            test = result["test"]
            family.info(f"{member.name}: accuracy {test['accuracy']:.2%}, macro F1 {test['macro_f1']:.2%}")
        if family.stop_requested():
            return family.finish_interrupted()
        found = cross_validation.summarize(family.folder, members)
        family.info(cross_validation.table(found, members))
        return family.finish(folds=found)


if __name__ == "__main__":
    main(VERB, crossval)
