"""Write a run's report.html: python jobs/report.py runs/NAME

Every training and search ends with it. This verb rewrites it from saved files: no image is read and no model runs. With
--watch it is rewritten every few seconds while the run is in progress.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import Section
from classifier.text import show

from .cli.command import main
from .cli.interrupts import Interrupts
from .cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Section):
    run: str = positional("Folder of a run or a search.")
    watch: bool = False
    """Rewrite it every few seconds until the run has ended."""


VERB = Verb(
    name="report",
    examples=("runs/NAME", "runs/NAME --watch true"),
    options=ReportOptions,
)
REFRESH_SECONDS = 5.0


def report(request: Request) -> int:
    """Write the page and print its path."""
    from classifier.api.missing import Missing
    from classifier.api.pages import write_pages
    from classifier.bundle.document import PRETRAINING
    from classifier.errors import RunError
    from classifier.report import run_page
    from classifier.runs.status import RUNNING, read_status

    options = request.options
    folder = Path(options.run)
    if (folder / PRETRAINING).is_file():
        raise RunError(f"{folder} is a pretraining, which has no report: its epochs are in {folder / 'history.jsonl'}")
    with Interrupts() as interrupts:
        if options.watch and read_status(folder) == RUNNING:
            page = run_page.write(folder, refresh=REFRESH_SECONDS)
            print(f"{show(page)}: the browser reloads it while the run is in progress", flush=True)
        while options.watch and read_status(folder) == RUNNING and not interrupts.stop_requested:
            wait(REFRESH_SECONDS, lambda: interrupts.stop_requested)
            run_page.write(folder, refresh=REFRESH_SECONDS)
    missing = Missing()
    page = write_pages(folder, missing)
    for fault in missing.faults:
        raise fault  # with its traceback, which the run that met it first did without
    if missing.names:
        raise RunError("; ".join(missing.describe()))
    print(show(page))
    return EXIT_INTERRUPTED if interrupts.stop_requested else EXIT_DONE


def wait(seconds: float, until: Callable[[], bool]) -> None:
    """Wait, or return early once `until()` is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        time.sleep(0.1)


if __name__ == "__main__":
    main(VERB, report)
