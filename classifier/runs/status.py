"""How a run ended, or that it is running: one answer for tables and pages."""

from pathlib import Path
from typing import Any

from classifier.errors import RunError
from classifier.runs.folder import is_in_use, read_history, read_result

RUNNING, STOPPED, DAMAGED = "running", "stopped", "damaged"


def read_status(folder: Path) -> str:
    """Return `finished`, `stopped` (by the user, or killed), `failed` (by an error), `running` or `damaged`.

    A run that was killed has no result.json, and no process owns its folder. One with a corrupted result.json is
    damaged.
    """
    if (folder / "result.json").is_file():
        try:
            return read_result(folder)["status"]
        except RunError:
            return DAMAGED
    return RUNNING if is_in_use(folder) else STOPPED


def read_best_epoch(folder: Path) -> dict[str, Any] | None:
    """Return the row of the history with the best validation accuracy so far, in a search that of any trial.

    None before the first validated epoch."""
    histories = [folder, *folder.glob("trials/*")]
    rows = [row for one in histories for row in read_history(one) if row["validation_accuracy"] is not None]
    return max(rows, key=lambda row: row["validation_accuracy"], default=None)
