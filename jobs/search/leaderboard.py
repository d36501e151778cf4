"""The trials of a search, best first: a table for people, `trials.parquet` for programs, and the winner."""

import contextlib
import dataclasses
import json
import shutil
import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.errors import RunError
from classifier.runs.folder import Run, read_history
from classifier.search.pareto import fronts, losses
from classifier.storage.bucket import Storage
from jobs.search.best_epochs import BestEpochs, rank
from jobs.search.plan import SearchPlan
from jobs.search.schedulers import EPOCH, SCORES
from jobs.search.trial_config import read_changes, read_trial_configs
from jobs.search.tuner import Event

# Epochs by which a trial's speed is told.
LATELY = 5


@dataclass
class Row:
    """One trial: what was sampled for it, and how far it came."""

    trial: str
    sample: dict[str, Any]
    epochs: int = 0
    ended: bool = False
    whole: bool = False
    """It came to the end of its training, rather than being stopped."""
    at: float = 0.0
    """Seconds since the search began, when its best epoch was reported."""
    lately: tuple[float, ...] = ()
    """Seconds of its last epochs, their validation left out."""


class Leaderboard:
    """Keeps what trials report of the search in a run folder."""

    def __init__(self, run: Run, plan: SearchPlan) -> None:
        self.folder, self.storage, self.plan = run.folder, run.storage, plan
        self.experiment = plan.experiment
        self.rows: dict[str, Row] = {}
        self.best_epochs = BestEpochs(self.experiment)
        self.is_over = False
        self._holding: dict[str, Row] = {}  # those whose models are still there: few, however many there were
        self._reports: list[float] = []

    def seconds(self) -> list[float]:
        """When the first and the last report came, in seconds since the search began."""
        return [round(at, 2) for at in (self._reports[:1] + self._reports[-1:])]

    def take(self, event: Event, at: float) -> Row:
        """Account for a report; the row that it changed. Of ended trials the best keep their models, the others not."""
        if event.trial not in self.rows:
            self.rows[event.trial] = self._holding[event.trial] = Row(event.trial, event.sample)
        row = self.rows[event.trial]
        row.sample = event.sample
        if event.ended:
            row.ended = True
            self._tidy()
        elif "error" not in event.report:
            self._reports.append(at)
            row.epochs, row.whole = event.report[EPOCH], event.report["whole"]
            row.lately = (*row.lately, event.report["seconds"])[-LATELY:]
            if self.best(row) is event.report:
                row.at = at
        return row

    def catch_up(self, at: float) -> None:
        """Account for epochs that trials wrote down and did not come to report: the search is over, or was cut off."""
        self.is_over = True
        for folder in sorted((self.folder / "trials").glob("*")):
            trial, changes = folder.name, read_changes(folder)
            if changes is None:
                continue
            reported = self.rows[trial].epochs if trial in self.rows else 0
            experiment = self.experiment.override_all(changes)
            for line in read_history(folder):
                if line["epoch"] > reported and line["validation_loss"] is not None:
                    report = {name: line[f"validation_{name}"] for name in SCORES}
                    report |= self.plan.costs.get(experiment.model.name, {})
                    report |= {EPOCH: line["epoch"], "epochs": line["epoch"], "digest": experiment.digest()}
                    report |= {"seconds": line["seconds"]}
                    whole = line["epoch"] >= experiment.train.epochs
                    report |= {"whole": whole}
                    self.best_epochs.update(trial, report)
                    self.take(Event(trial, changes, report), at)

    def best(self, row: Row) -> dict[str, Any]:
        """The report of a trial's best epoch; empty before its first."""
        return self.best_epochs.get(row.trial) or {}

    def status(self, row: Row) -> str:
        """finished, stopped (early, by the scheduler), failed, running, or unfinished where the search is over."""
        if (self.folder / "trials" / row.trial / "error.txt").exists():
            return "failed"
        if row.whole:
            return "finished"
        return "stopped" if row.ended else "unfinished" if self.is_over else "running"

    def ranked(self, rows: dict[str, Row] | None = None) -> list[Row]:
        """Best first, by the first objective; trials that were stopped behind those that came to their end.

        The score of a training that was cut off is mostly luck, and with few validation images luck would win.
        """
        rows = self.rows if rows is None else rows
        best = {name: self.best(row) for name, row in rows.items()}
        scored = [row for row in rows.values() if best[row.trial]]
        scored.sort(key=lambda row: (not row.whole, rank(self.experiment, best[row.trial])))
        return scored + [row for row in rows.values() if not best[row.trial]]

    def epoch_seconds(self) -> float | None:
        """Of the trial that leads, an epoch's lately, as if it had the machine to itself; None before the first."""
        lately = next((row.lately for row in self.ranked(self._holding)), ())
        return statistics.median(lately) / self.plan.end.trial_slowdown if lately else None

    def front(self, rows: dict[str, Row] | None = None) -> list[Row]:
        """The trials that no other one beats in all objectives, best first by the first of them."""
        scored = [row for row in self.ranked(rows) if self.best(row)]
        ranks = fronts([losses(self.best(row), self.experiment.search.objective) for row in scored])
        return [row for row, rank in zip(scored, ranks, strict=True) if rank == 0]

    @property
    def has_winner(self) -> bool:
        """A trial came to a score."""
        return any(self.best(row) for row in self.rows.values())

    def winner(self) -> tuple[Run, Experiment]:
        """The best trial's run folder and its experiment. RunError if no trial came to a score."""
        ranked = [row for row in self.ranked() if self.best(row)]
        if not ranked:
            errors = [p.read_text().strip() for p in sorted((self.folder / "trials").glob("*/error.txt"))]
            why = f"the first said: {errors[0]}" if errors else "give the search more minutes"
            raise RunError(f"no trial of {self.folder} came to the end of an epoch; {why}")
        folder = self.folder / "trials" / ranked[0].trial
        experiment = read_experiment(folder / "experiment.yaml")
        experiment = dataclasses.replace(experiment, search=self.experiment.search)
        # What a trial had of its machine is not the winner's, which may have all of another one.
        asked = {name: self.value(ranked[0], name) for name in ("train.device", "train.precision")}
        return Run(folder), experiment.override_all(asked | {"train.threads": None, "workers.cpus": None})

    def line(self, row: Row) -> str:
        """An ended trial in a line."""
        best = self.best(row)
        score = f"validation {best['accuracy']:.2%} loss {best['loss']:.3f}" if best else "no score"
        sample = "  ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in row.sample.items())
        return f"trial {row.trial} {self.status(row)} after {row.epochs} epochs: {score}  {sample or 'the recipe'}"

    def names(self) -> list[str]:
        """The settings that differ between trials or were searched, in the order of the space."""
        changed = [name for row in self.rows.values() for name in row.sample]
        return list(dict.fromkeys((*self.plan.space, *changed)))

    def value(self, row: Row, name: str) -> Any:
        """A trial's value of a setting."""
        return row.sample.get(name, self.experiment.get(name))

    def table(self, limit: int = 12) -> Table:
        """The best rows, with what was sampled for them."""
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        shown = dict.fromkeys((*SCORES, *(name for name in self.experiment.search.objective if name != "epochs")))
        for name in (*shown, "epochs"):
            table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        table.add_column("what it changes", overflow="fold")
        for row in self.ranked()[:limit]:
            best = self.best(row)
            scores = [_score(name, best[name]) if name in best else "" for name in shown]
            table.add_row(row.trial, *scores, str(row.epochs), self.status(row), _briefly(row.sample))
        return table

    def write(self) -> None:
        """trials.parquet: a row a trial, best first, with a column for each setting that was searched."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sources = {sample.name: sample.source for sample in read_trial_configs(self.folder / "trials")}
        front = {row.trial for row in self.front()}
        names = self.names()
        records = []
        for place, row in enumerate(self.ranked(), start=1):
            folder = self.folder / "trials" / row.trial
            best, error, halved = self.best(row), folder / "error.txt", folder / "halved.json"
            records.append(
                {"rank": place, "trial": row.trial, "status": self.status(row), "epochs": row.epochs}
                | {f"validation_{name}": best.get(name) for name in SCORES}
                | {name: best.get(name) for name in ("latency", "latency_batch", "size") if name in best}
                | {"best_epoch": best.get(EPOCH), "on_front": row.trial in front, "at": row.at}
                | {"seconds": sum(line["seconds"] for line in read_history(folder))}
                | {"source": sources.get(row.trial, self.experiment.search.scheduler)}
                | {"digest": best.get("digest"), "error": error.read_text().strip() if error.exists() else None}
                | {"batch_halved": json.loads(halved.read_text())["to"] if halved.exists() else None}
                | {name: self.value(row, name) for name in names}
            )
        pq.write_table(pa.Table.from_pylist(records), self.folder / "trials.parquet")

    def _tidy(self) -> None:
        """Keep the models and checkpoints of search.keep trials and of the front; the others cannot win any more."""
        kept = {row.trial for row in self.ranked(self._holding)[: self.experiment.search.keep]}
        if len(self.experiment.search.objective) > 1:
            kept |= {row.trial for row in self.front(self._holding)}
        for row in list(self._holding.values()):
            if row.ended and row.trial not in kept:
                del self._holding[row.trial]
                for name in ("checkpoints", "bundle"):
                    shutil.rmtree(self.folder / "trials" / row.trial / name, ignore_errors=True)
                if self.storage is not None:
                    self._tidy_copy(self.storage, f"trials/{row.trial}")

    def _tidy_copy(self, storage: Storage, trial: str) -> None:
        """Remove an ended trial's models from storage; where that cannot be, they cost room there, and nothing else."""
        with contextlib.suppress(OSError):
            # Without that mark a search that is taken up elsewhere would train it again.
            storage.upload(self.folder / trial / "ended.json", f"{trial}/ended.json")
            for name in ("checkpoints", "bundle"):
                storage.remove(f"{trial}/{name}")


def _briefly(sample: dict[str, Any]) -> str:
    """A sample in few words: what is named needs no name of its own."""
    values = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in sample.items()}
    words = [v if n.endswith(".name") else f"{n.rpartition('.')[2]} {v}" for n, v in values.items()]
    return "  ".join(words) or "the recipe"


def _score(name: str, value: float) -> str:
    if name == "size":
        return f"{value:,.0f}"
    if name in ("accuracy", "macro_f1"):
        return f"{value:.2%}"
    return f"{value:.2f}" if name == "latency" else f"{value:.3f}"
