"""Test a model, once: python jobs/evaluate.py runs/NAME

The scores on the held-out test split are written into the run that is tested. Asked again, the saved figures are
shown; --again reads the split again, and that is counted.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import Options, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    run: str = positional("Folder of a run, a search or a bundle.")
    again: bool = False
    """Read the test split again, though it was read before; each reading is counted in result.json."""
    data: str | None = None
    """Where the data set lies now, if it has moved. Its images, labels and splits must be the same."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


VERB = Verb(
    name="evaluate",
    summary="Test a model on the held-out test split, once: accuracy, precision, recall, F1, confusion.",
    examples=("evaluate.py runs/NAME", "evaluate.py runs/NAME --again"),
    options=EvaluateOptions,
)


def evaluate(request: Request) -> None:
    """Read the test split or remember it, write the figures where they belong, and show them."""
    from classifier.report import run_page
    from classifier.runs.recorder import result_fields
    from jobs.steps import session, test_model

    options = request.options
    with session.open_run(VERB.name, options, subject=options.run) as (run, journal):
        owner = test_model.owner_of(options.run)
        into = [run.folder, owner] if owner else [run.folder]
        reading = test_model.taken(
            options.run, into, again=options.again, data_path=options.data, device=options.device
        )
        reads = test_model.note_in_result(owner, reading) if owner else 1
        run.write_result(VERB.name, "finished", **result_fields(options.run, reading.loaded), test_reads=reads)
        for thing in test_model.score_tables(reading.scores):
            journal.info(thing)
        if reading.predictions is None:
            journal.info("these figures were saved when the test split was read; --again reads it again")
        elif reads > 1:
            journal.info(f"the test split was read {reads} times now: a model chosen by it is no longer held to it")
        if owner:
            journal.info(f"all about it: {run_page.write(owner)}")
        journal.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, evaluate)
