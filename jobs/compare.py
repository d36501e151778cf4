"""Is one model better than another? python jobs/compare.py runs/A runs/B

Evaluate each run (jobs/evaluate.py) on the same test images first. Predictions are compared image by image, which shows
far smaller differences than two accuracies side by side. No image is read. --name or --out also saves the results.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.errors import ConfigError

if TYPE_CHECKING:
    from classifier.metrics.significance import F1Difference

from .cli.command import main
from .cli.environment import command
from .cli.verb import OptionalRunOptions, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OptionalRunOptions):
    runs: tuple[str, ...] = positional(
        "Two or more runs, searches or cross-validations; all are compared with the first."
    )


VERB = Verb(
    name="compare",
    examples=("runs/A runs/B", "runs/baseline runs/wide runs/pretrained"),
    options=CompareOptions,
)


def compare(request: Request) -> None:
    """Compare each run with the first, and say whether it is better."""
    from rich.table import Table

    from classifier.bundle.predictions import read_predicted_classes
    from classifier.config.files import read_experiment
    from classifier.metrics.significance import compare_predictions, holm

    from .steps.output_run import open_run_on_request

    options = request.options
    if len(options.runs) < 2:
        raise ConfigError(f"give at least two runs: {command('compare')} runs/A runs/B")
    predictions = [read_predicted_classes(Path(run)) for run in options.runs]
    experiment = Path(options.runs[0], "experiment.yaml")
    data_path = read_experiment(experiment).data.path if experiment.is_file() else options.runs[0]
    with open_run_on_request(options, data_path) as (run, log):
        pairs = [compare_predictions(predictions[0], other) for other in predictions[1:]]
        p_values = holm([pair.p for pair in pairs])
        pairs = [dataclasses.replace(pair, p=p) for pair, p in zip(pairs, p_values, strict=True)]
        by_f1 = [pair.f1 for pair in pairs if pair.f1]  # of several labels
        for n, p in enumerate(holm([f1.p for f1 in by_f1])):
            pairs[n] = dataclasses.replace(pairs[n], f1=dataclasses.replace(by_f1[n], p=p))
        table = Table(box=None, pad_edge=False)
        table.add_column("run", no_wrap=True)
        columns = ["accuracy", "points", "95 %", "gained", "lost", "p"]
        for name in columns + (["F1", "points", "95 %", "p"] if by_f1 else []):
            table.add_column(name, justify="right")
        first_f1 = [*[""] * 5, f"{by_f1[0].first:.2%}"] if by_f1 else []
        table.add_row(pairs[0].first, f"{pairs[0].first_accuracy:.2%}", *first_f1)
        for pair in pairs:
            low, high = pair.interval
            table.add_row(
                pair.second,
                f"{pair.second_accuracy:.2%}",
                f"{100 * pair.gain:+.2f}",
                f"{100 * low:+.2f} to {100 * high:+.2f}",
                f"{pair.second_only:,}",
                f"{pair.first_only:,}",
                f"{pair.p:.2g}",
                *(_describe_f1(pair.f1) if pair.f1 else ()),
            )
        count = len(predictions[0].ids)
        log.info(f"{count:,} test image{'' if count == 1 else 's'}, the same for all")
        log.info("gained: only this run is right; lost: only the first is; points: the difference of accuracy")
        if by_f1:
            log.info(
                "right: all labels of an image; F1: the mean over images, 1 where there is no label and none is said"
            )
        log.info(table)
        for pair in pairs:
            log.info(pair.summary)
        if run:
            differences = [dataclasses.asdict(pair) | {"verdict": pair.summary} for pair in pairs]
            run.write_result(VERB.name, "finished", differences=differences)
            log.info(str(run.folder))


def _describe_f1(f1: "F1Difference") -> tuple[str, ...]:
    low, high = f1.interval
    return f"{f1.second:.2%}", f"{100 * f1.gain:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}", f"{f1.p:.2g}"


if __name__ == "__main__":
    main(VERB, compare)
