"""Tell of a run on one page: python jobs/report.py runs/NAME

Every training and search ends with it. Asked again, the page is made anew from what was saved: no image is read, and no
model runs. With --watch it is made again and again while the run goes on.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import Section  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.interrupts import Interrupts  # noqa: E402
from jobs.cli.verb import EXIT_DONE, EXIT_INTERRUPTED, Request, Verb, positional  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Section):
    run: str = positional("Folder of a run or a search.")
    watch: bool = False
    """Make it again every few seconds, until the run has ended."""


VERB = Verb(
    name="report",
    summary="Make report.html of a run: how good the model is, where it fails, how far to believe it.",
    examples=("report.py runs/NAME", "report.py runs/NAME --watch true"),
    options=ReportOptions,
)
EVERY = 5.0


def report(request: Request) -> int:
    """Write the page and print where it lies."""
    from classifier.report import run_page

    options = request.options
    folder = Path(options.run)
    with Interrupts() as interrupts:
        while options.watch and not (folder / "result.json").exists() and not interrupts.stop_requested:
            print(
                f"{run_page.write(folder, refresh=EVERY)}: the browser loads it again while the run goes on", flush=True
            )
            wait(EVERY, lambda: interrupts.stop_requested)
    print(run_page.write(folder))
    return EXIT_INTERRUPTED if interrupts.stop_requested else EXIT_DONE


def wait(seconds: float, until: Callable[[], bool]) -> None:
    """So long, or until it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        time.sleep(0.1)


if __name__ == "__main__":
    main(VERB, report)
