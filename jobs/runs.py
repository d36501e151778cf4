"""List runs in a table: python jobs/runs.py

Filter with --where, sort with --sort. --delete deletes the runs in the table, after asking.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import Section
from classifier.text import show

from .cli.command import main
from .cli.verb import EXIT_DONE, EXIT_USER_ERROR, Request, Verb

# Characters in a line that no terminal shows.
UNLIMITED = 10_000


@dataclass(frozen=True, kw_only=True)
class RunsOptions(Section):
    out: str = "runs"
    """Parent folder of run folders."""
    where: tuple[str, ...] = ()
    """Only runs that match: kind=train, status=finished, data=photos, or a setting such as model.name=cnn."""
    sort: str = "when"
    """Sort by when, name, validation, test, seconds, or the dotted name of a setting."""
    delete: bool = False
    """Delete the runs in the table, after asking."""
    yes: bool = False
    """Delete without asking."""


VERB = Verb(
    name="runs",
    examples=(
        "",
        "--where kind=train model.name=resnet9_16 --sort test",
        "--where status=failed --delete",
    ),
    options=RunsOptions,
)


def runs(request: Request) -> int:
    """Print the table, and delete its runs if asked to and confirmed."""
    from .cli.console import console
    from .steps import runs_table

    options = request.options
    rows = runs_table.find_runs(Path(options.out), options.where, options.sort)
    screen = console()
    if not screen.is_terminal:  # what reads the table wants all of it
        screen.width = UNLIMITED
    screen.print(runs_table.make_table(rows, screen.width))
    if not options.delete or not rows:
        return EXIT_DONE
    if not options.yes:
        size = runs_table.format_size(row.folder for row in rows)
        try:
            answer = input(f"permanently delete these {len(rows)} runs, {size}? Type yes: ")
        except EOFError:
            answer = ""
        if answer.strip().lower() != "yes":
            print("nothing was deleted")
            return EXIT_USER_ERROR
    for line in runs_table.delete_runs(rows):
        print(show(line))
    return EXIT_DONE


if __name__ == "__main__":
    main(VERB, runs)
