"""All runs in a table: python jobs/runs.py

Filtered by --where, sorted by --sort. With --delete true the runs of the table are deleted, after asking.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import Section  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import EXIT_DONE, EXIT_MISTAKE, Request, Verb  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class RunsOptions(Section):
    out: str = "runs"
    """Where run folders lie."""
    where: tuple[str, ...] = ()
    """Only runs of which this is true: kind=train, status=finished, data=photos, or a setting, as model.name=cnn."""
    sort: str = "when"
    """when, name, validation, test, seconds, or the dotted name of a setting."""
    delete: bool = False
    """Delete the runs of the table, after asking."""
    yes: bool = False
    """Do not ask."""


VERB = Verb(
    name="runs",
    summary="List the runs: what they are, how they ended and how good their models are.",
    examples=(
        "runs.py",
        "runs.py --where kind=train model.name=resnet9_16 --sort test",
        "runs.py --where status=failed --delete",
    ),
    options=RunsOptions,
)


def runs(request: Request) -> int:
    """Print the table, and delete what is in it if that is asked for and meant."""
    from jobs.cli.console import console
    from jobs.steps import runs_table

    options = request.options
    found = runs_table.found(Path(options.out), options.where, options.sort)
    console().print(runs_table.table(found))
    if not options.delete or not found:
        return EXIT_DONE
    if not options.yes:
        words = (
            f"delete these {len(found)} runs, {runs_table.size_of(row.folder for row in found)}, for good? Type yes: "
        )
        try:
            said = input(words)
        except EOFError:
            said = ""
        if said.strip().lower() != "yes":
            print("nothing was deleted")
            return EXIT_MISTAKE
    for line in runs_table.deleted(found):
        print(line)
    return EXIT_DONE


if __name__ == "__main__":
    main(VERB, runs)
