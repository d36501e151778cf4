"""Find what is wrong with a data set before training on it: python jobs/audit.py photos/

Finds unreadable files, duplicates and near duplicates within and across splits, images with two labels, and images that
are tiny, blank, dark or blurred. Writes a page with thumbnails, a table and, on request, a cleaned manifest.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# Import from the repository root instead of this folder: works uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import ExperimentOptions, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class AuditOptions(ExperimentOptions):
    path: str = positional("The data set, as for --data.path.", default="")
    model: str | None = None
    """Folder of a run or bundle, whose model finds labels that are probably wrong."""
    write_manifest: str | None = None
    """Write a cleaned CSV manifest here: no bad images, no duplicates, no image in two splits."""


VERB = Verb(
    name="audit",
    summary="Find what is wrong with a data set before training on it.",
    examples=("audit.py photos/", "audit.py photos/ --write-manifest clean.csv", "audit.py photos/ --model runs/A"),
    options=AuditOptions,
    sections=("data",),
)


def audit(request: Request) -> None:
    """Check every image, and write page, table and manifest."""
    from jobs.steps.audit import run_audit
    from jobs.steps.session import open_run

    options = request.options
    changes = request.changes | ({"data.path": options.path} if options.path else {})
    experiment = Request(options, changes).experiment()
    with open_run(VERB.name, options, subject=experiment.data.path) as (run, log):
        run_audit(experiment, options, run, log)
        log.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, audit)
