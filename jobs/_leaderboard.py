"""The trials of a search, best first: a table for people, `trials.parquet` for programs, and the winner."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from classifier.config import Experiment
from classifier.errors import RunError
from classifier.run import Run, read_experiment
from jobs._search import EPOCH, MODES, Event, Plan


@dataclass
class Row:
    """One trial: what was sampled for it and its best epoch so far."""

    trial: str
    sample: dict[str, Any]
    epochs: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    ended: bool = False


class Leaderboard:
    """Keeps what trials report; `folder` is the search's run folder."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.rows: dict[str, Row] = {}

    def take(self, event: Event) -> Row:
        """Account for a report; the row that it changed."""
        row = self.rows.setdefault(event.trial, Row(event.trial, event.sample))
        if event.report.get("ended"):
            row.ended = True
        else:
            row.epochs = event.report[EPOCH]
            if not row.best or self._score(event.report) > self._score(row.best):
                row.best = event.report
        return row

    def status(self, row: Row) -> str:
        """finished, stopped (early, by the scheduler or the budget), failed or running."""
        if (self.folder / "trials" / row.trial / "error.txt").exists():
            return "failed"
        if row.epochs >= self.plan.experiment.train.epochs:
            return "finished"
        return "stopped" if row.ended else "running"

    def ranked(self) -> list[Row]:
        """Best first; trials without a score last."""
        scored = [row for row in self.rows.values() if row.best]
        return sorted(scored, key=lambda row: self._score(row.best), reverse=True) + [
            row for row in self.rows.values() if not row.best
        ]

    def winner(self) -> tuple[Run, Experiment]:
        """The best trial's run folder and its experiment. RunError if no trial came to a score."""
        ranked = [row for row in self.ranked() if row.best]
        if not ranked:
            errors = [p.read_text().strip() for p in sorted((self.folder / "trials").glob("*/error.txt"))]
            why = f"the first said: {errors[0]}" if errors else "give the search more minutes"
            raise RunError(f"no trial of {self.folder} came to the end of an epoch; {why}")
        folder = self.folder / "trials" / ranked[0].trial
        experiment = read_experiment(folder / "experiment.yaml")
        # What a trial had of the machine is not the winner's: it may have all of it.
        return Run(folder), experiment.override("train.threads", None)

    def table(self, limit: int = 12) -> Table:
        """The best rows, with what was sampled for them."""
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        for name in (*MODES, "epochs", *(name.rpartition(".")[2] for name in self.plan.space)):
            table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for row in self.ranked()[:limit]:
            scores = (
                [f"{row.best[m]:.2%}" if m != "loss" else f"{row.best[m]:.3f}" for m in MODES] if row.best else [""] * 3
            )
            values = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in (row.sample[n] for n in self.plan.space)]
            table.add_row(row.trial, *scores, str(row.epochs), *values, self.status(row))
        return table

    def write(self) -> None:
        """trials.parquet: a row a trial, best first, with a column for each setting that was searched."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        records = []
        for rank, row in enumerate(self.ranked(), start=1):
            folder = self.folder / "trials" / row.trial
            error = folder / "error.txt"
            history = Run(folder).history()
            records.append(
                {"rank": rank, "trial": row.trial, "status": self.status(row), "epochs": row.epochs}
                | {f"validation_{name}": row.best.get(name) for name in MODES}
                | {"best_epoch": row.best.get(EPOCH), "seconds": sum(line["seconds"] for line in history)}
                | {"digest": row.best.get("digest"), "error": error.read_text().strip() if error.exists() else None}
                | row.sample
            )
        pq.write_table(pa.Table.from_pylist(records), self.folder / "trials.parquet")

    def _score(self, report: dict[str, Any]) -> tuple[float, float]:
        """Larger is better; of equal scores the lower loss wins."""
        metric = self.plan.experiment.search.metric
        return (-report["loss"] if metric == "loss" else report[metric], -report["loss"])
