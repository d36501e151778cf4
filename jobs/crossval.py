"""Cross-validate an experiment: python jobs/crossval.py photos/ --folds 5

Every image is tested once, by a model that was not trained on it: k trainings run in parallel on Ray, each with another
fold held out. Duplicates, and images of one data.group, are in the same fold. A test split that came with the data is
not used. With --search, a search runs in each fold (nested cross-validation).
"""

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveInt

from .cli.command import main
from .cli.verb import SECTIONS, ExperimentOptions, Request, Verb


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(ExperimentOptions):
    folds: PositiveInt = 5
    """Number of folds, each of which is held out once."""
    repeats: PositiveInt = 1
    """Number of times to draw new folds."""
    search: bool = False
    """Run a search in each fold, with the settings in search.*, and test its winner."""
    resume: str | None = None
    """Resume this earlier cross-validation."""


VERB = Verb(
    name="crossval",
    examples=(
        "--folds 5  # the built-in digits",
        "photos/ --folds 5 --repeats 3",
        "photos/ --search --search.minutes 3",
        "--resume runs/NAME",
    ),
    options=CrossvalOptions,
    sections=("search", *SECTIONS),
    common=("train.epochs", "model.name", "model.weights", "search.minutes", "seed"),
)


def crossval(request: Request) -> int:
    """Train and test each fold, and summarize the scores."""
    from classifier.report.numbers import format_accuracy, format_share

    from .studies import cross_validation, parallel_runs, study
    from .tune import tune

    options, saved = request.options, ("folds", "repeats", "search")
    with study.open_study(VERB.name, request, saved, {"data.folds": options.folds, "data.fold": 0}) as cv:
        saved_options = cv.options
        runs = cross_validation.plan_runs(
            saved_options["folds"], saved_options["repeats"], cv.experiment.data.split_seed
        )
        search_runs = functools.partial(parallel_runs.search_runs, search=tune)
        run_all = search_runs if saved_options["search"] else parallel_runs.train_runs
        results = run_all(cv.experiment, runs, cv.folder / "folds", log=cv.log, should_stop=cv.stop_requested)
        for run, result in results:
            test = result["test"]
            area = "" if test.get("map") is None else f"mAP {format_share(test['map'], 2)}, "  # of several labels
            accuracy, macro_f1 = format_accuracy(test, 2), format_share(test["macro_f1"], 2)
            cv.info(f"{run.name}: {area}accuracy {accuracy}, macro F1 {macro_f1}")
        if cv.stop_requested():
            return cv.finish_interrupted()
        scores = cross_validation.summarize(cv.folder, runs)
        cv.info(cross_validation.make_table(scores, runs))
        return cv.finish(folds=scores)


if __name__ == "__main__":
    main(VERB, crossval)
