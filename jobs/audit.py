"""What is wrong with a data set, before a night is wasted on it: python jobs/audit.py photos/

Finds what cannot be read, copies and near-copies within and across splits, pictures under two labels, and those that
are tiny, blank, dark or blurred; a page with thumbnails, a table, and on request a manifest without what is bad.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import BeginningOptions, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class AuditOptions(BeginningOptions):
    path: str = positional("The data set, as --data.path takes it.", default="")
    model: str | None = None
    """A run or bundle folder whose model's features find labels that are probably wrong."""
    write_manifest: str | None = None
    """Write a CSV manifest here: without what is bad, one of each copy, and leaks on one side."""


VERB = Verb(
    name="audit",
    summary="Find what is wrong with a data set before training on it.",
    examples=("audit.py photos/", "audit.py photos/ --write-manifest clean.csv", "audit.py photos/ --model runs/A"),
    options=AuditOptions,
    slices=("data",),
)


def audit(request: Request) -> None:
    """Look at every picture, say what was found, and write page, table and manifest."""
    from jobs.steps import session
    from jobs.steps.audit import run_audit

    options = request.options
    changes = request.changes | ({"data.path": options.path} if options.path else {})
    experiment = Request(options, changes).experiment()
    with session.opened(VERB.name, options, subject=experiment.data.path) as (run, journal):
        run_audit(experiment, options, run, journal)
        journal.say(str(run.folder))


if __name__ == "__main__":
    main(VERB, audit)
