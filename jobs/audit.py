"""Find what is wrong with a data set before training on it: python jobs/audit.py photos/

Finds unreadable files, duplicates and near duplicates within and across splits, images with two labels, images that are
tiny, blank, dark or blurred, and what a training would refuse. Writes a page with thumbnails,
a table and, on request, a cleaned manifest.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from .cli.command import main
from .cli.verb import ExperimentOptions, Request, Verb


@dataclass(frozen=True, kw_only=True)
class AuditOptions(ExperimentOptions):
    model: str | None = None
    """Folder of a run or bundle, whose model finds labels that are probably wrong."""
    write_manifest: str | None = None
    """Write a cleaned CSV manifest here: no bad images, no duplicates, no image in two splits."""


VERB = Verb(
    name="audit",
    examples=("photos/", "photos/ --write-manifest clean.csv", "photos/ --model runs/A"),
    options=AuditOptions,
    sections=("data",),
    unused=("data.batch", "data.batch_auto", "data.balance", "data.window"),
    common=("data.only", "data.group", "data.max_corrupt"),
)


def audit(request: Request) -> None:
    """Check every image, and write page, table and manifest."""
    from classifier.runtime.threads import use_free_cores

    from .steps.audit import run_audit
    from .steps.output_run import open_run

    options = request.options
    experiment = request.experiment()
    with (
        open_run(options, experiment.data.path) as (run, log),
        use_free_cores(request.load, log.info, "OMP_NUM_THREADS"),
    ):
        run_audit(experiment, options, run, log)
        log.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, audit)
