"""Learn what more images would bring: python jobs/curve.py --data.path photos/

Trains on larger and larger parts of the training images, each a part of the next, with as many steps, and fits a power
law to the error on the validation images: what twice the data would bring, and whether the model is too small for them
or they too few.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import PositiveInt, PositiveFloat  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import SLICES, BeginningOptions, Request, Verb  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class CurveOptions(BeginningOptions):
    sizes: PositiveInt = 5
    """How many sizes, each twice the one before it."""
    largest: PositiveFloat = 1.0
    """The largest size, as a share of the training images."""
    repeats: PositiveInt = 1
    """How often each size is drawn and trained anew."""
    resume: str | None = None
    """Go on with this earlier curve."""


VERB = Verb(
    name="curve",
    summary="Draw a learning curve: score against the number of training images, and what more would bring.",
    examples=(
        "curve.py                                     # the embedded digits",
        "curve.py --data.path photos/ --sizes 6",
    ),
    options=CurveOptions,
    slices=SLICES,
)


def curve(request: Request) -> int:
    """Train at each size, fit, and tell what it means."""
    from jobs.studies import learning_curve, parallel_runs, study

    with study.open_study(VERB.name, request, keep=("sizes", "largest", "repeats")) as family:
        asked = family.options
        members = learning_curve.plan_runs(family.dataset, family.experiment, **asked)
        for member, result in parallel_runs.train_runs(
            family.experiment, members, family.folder / "sizes", should_stop=family.stop_requested
        ):
            family.info(f"{member.changes['data.limit']:,} images: validation {result['validation']['accuracy']:.2%}")
        if family.stop_requested():
            return family.finish_interrupted()
        found = learning_curve.summarize(family.folder, members, len(family.dataset.train))
        family.info(learning_curve.table(found))
        for line in found["says"]:
            family.info(line)
        return family.finish(curve=found)


if __name__ == "__main__":
    main(VERB, curve)
