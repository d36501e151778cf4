"""Test a model once: python jobs/evaluate.py runs/NAME

The scores on the held-out test split are saved in the run that is tested, and shown again by later calls. --again
evaluates the split again, which is counted.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from .cli.command import main
from .cli.verb import DATA_SETTINGS, OptionalRunOptions, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(OptionalRunOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    again: bool = False
    """Evaluate the test split again although it was read before; each read is counted in result.json."""
    data: str | None = None
    """Path of the data set, if it has moved. Its images, labels and splits must be unchanged."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="evaluate",
    examples=("runs/NAME", "runs/NAME --again"),
    options=EvaluateOptions,
    settings=DATA_SETTINGS,
)


def evaluate(request: Request) -> None:
    """Evaluate the test split, or read its saved scores; write and show them."""
    from classifier.api import testing
    from classifier.api.missing import Missing
    from classifier.api.pages import write_pages
    from classifier.bundle import bundle
    from classifier.bundle.test_reads import count_test_reads, describe_count
    from classifier.evaluation.test_split import owner_of
    from classifier.runs.recorder import result_fields
    from classifier.runtime.threads import use_free_cores

    from .steps.output_run import open_run_on_request
    from .steps.scores_table import describe_scores, tabulate_importance

    options, missing = request.options, Missing()
    owner = owner_of(options.run)
    data_path = bundle.read(options.run).experiment["data"]["path"]
    with (
        open_run_on_request(options, data_path, is_needed=not owner) as (run, log),
        use_free_cores(request.load, log.info, "OMP_NUM_THREADS"),
    ):
        folders = [folder for folder in (run and run.folder, owner) if folder]
        result = testing.run_test(
            options.run,
            folders,
            again=options.again,
            data_path=options.data,
            data_settings=request.changes,
            device=options.device,
            missing=missing,
        )
        reads = testing.save_test_scores(owner, result) if owner else count_test_reads(options.run)
        if run:
            run.write_result(VERB.name, "finished", **result_fields(options.run, result.loaded), test_reads=reads)
        page = write_pages(owner, missing) if owner else None  # before output whose reader may have ended
        for item in (*describe_scores(result.scores), *tabulate_importance(result.bundle.fusion, "test")):
            log.info(item)
        if result.predictions is None:
            log.info("these scores were saved when the test split was evaluated; --again evaluates it again")
        log.info(f"the test split was read {describe_count(reads)}{': do not select models on it' * (reads > 1)}")
        if page:
            log.info(f"report: {page}")
        for line in missing.describe():
            log.warning(line)
        log.info(str(folders[0]))


if __name__ == "__main__":
    main(VERB, evaluate)
