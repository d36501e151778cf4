"""Is one model better than another? python jobs/compare.py runs/A runs/B

Each run has to be tested (jobs/evaluate.py) on the same test images. They are compared image by image, which tells far
smaller differences than two accuracies beside each other do. No image is read.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.errors import ConfigError  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import Options, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    runs: tuple[str, ...] = positional(
        "Two or more runs, searches or cross-validations; others are compared with the first."
    )


VERB = Verb(
    name="compare",
    summary="Compare models on the same test images, pair by pair, with a verdict.",
    examples=("compare.py runs/A runs/B", "compare.py runs/baseline runs/wide runs/pretrained"),
    options=CompareOptions,
)


def compare(request: Request) -> None:
    """Compare each run with the first, and say which is better."""
    from rich.table import Table

    from classifier.bundle.predictions import read_predicted_classes
    from classifier.metrics.significance import compare_predictions, holm
    from jobs.steps import session

    options = request.options
    if len(options.runs) < 2:
        raise ConfigError("give two runs at least: python jobs/compare.py runs/A runs/B")
    answers = [read_predicted_classes(Path(run)) for run in options.runs]
    with session.open_run(VERB.name, options, subject=options.runs[0]) as (run, journal):
        found = [compare_predictions(answers[0], other) for other in answers[1:]]
        found = [dataclasses.replace(one, p=p) for one, p in zip(found, holm([one.p for one in found]), strict=True)]
        shown = Table(box=None, pad_edge=False)
        for name in ("run", "accuracy", "difference", "95 %", "it alone is right", "the first alone", "p"):
            shown.add_column(name, justify="left" if name == "run" else "right")
        shown.add_row(found[0].first, f"{found[0].first_accuracy:.2%}")
        for one in found:
            low, high = one.interval
            shown.add_row(
                one.second,
                f"{one.second_accuracy:.2%}",
                f"{100 * one.gain:+.2f}",
                f"{100 * low:+.2f} to {100 * high:+.2f}",
                f"{one.second_only:,}",
                f"{one.first_only:,}",
                f"{one.p:.2g}",
            )
        journal.info(f"{len(answers[0].ids):,} test images, the same for all")
        journal.info(shown)
        for one in found:
            journal.info(one.summary)
        differences = [dataclasses.asdict(one) | {"verdict": one.summary} for one in found]
        run.write_result(VERB.name, "finished", differences=differences)
        journal.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, compare)
