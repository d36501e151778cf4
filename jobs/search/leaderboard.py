"""The trials of a search, best first: a table to print, trials.parquet, and the winner."""

import contextlib
import dataclasses
import shutil
import statistics
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from classifier.bundle import bundle
from classifier.config.documents import read_json
from classifier.config.experiment import Experiment
from classifier.config.files import read_experiment
from classifier.errors import RunError
from classifier.runs.folder import RunFolder, read_history
from classifier.runs.schema import HalvedBatch, TrialEnd
from classifier.search.pareto import pareto_fronts, to_losses
from classifier.storage.bucket import Storage
from classifier.text import escape_all

from .best_epochs import BestEpochs, rank
from .plan import SearchPlan
from .schedulers import EPOCH, SCORES, TASK_SCORES, read_scores
from .trial_config import list_changes, read_changes, read_trial_configs
from .tuner import TrialEvent

# Epochs that a trial's speed is measured over.
RECENT_EPOCHS = 5


@dataclass
class Row:
    """One trial: what it changes, and how far it got."""

    trial: str
    changes: dict[str, Any]
    epochs: int = 0
    has_ended: bool = False
    is_complete: bool = False
    """Its training ran to the end, rather than being stopped."""
    best_at_seconds: float = 0.0
    """When its best epoch was reported, in seconds since the search started."""
    recent_epoch_seconds: tuple[float, ...] = ()
    """Of its last epochs, without validation."""


class Leaderboard:
    """Collects what the trials of a search report."""

    def __init__(self, run: RunFolder, plan: SearchPlan) -> None:
        self.folder, self.storage, self.plan = run.folder, run.storage, plan
        self.experiment = plan.experiment
        self.rows: dict[str, Row] = {}
        self.best_epochs = BestEpochs(self.experiment)
        self.is_over = False
        self._rows_with_models: dict[str, Row] = {}  # few, however many trials there were
        self._report_times: list[float] = []

    def report_span(self) -> list[float]:
        """When the first and the last report arrived, in seconds since the search started."""
        return [round(at, 2) for at in (self._report_times[:1] + self._report_times[-1:])]

    def record(self, event: TrialEvent, at: float) -> Row:
        """Record an event, and return the row that it changed. At the end of a trial, delete models that cannot win."""
        if event.trial not in self.rows:
            self.rows[event.trial] = self._rows_with_models[event.trial] = Row(event.trial, event.changes)
        row = self.rows[event.trial]
        row.changes = event.changes
        if event.has_ended:
            row.has_ended = True
            self._delete_models()
        elif "error" not in event.report:
            self._report_times.append(at)
            row.epochs, row.is_complete = event.report[EPOCH], event.report["whole"]
            row.recent_epoch_seconds = (*row.recent_epoch_seconds, event.report["seconds"])[-RECENT_EPOCHS:]
            if self.best(row) is event.report:
                row.best_at_seconds = at
        return row

    def catch_up(self, at: float) -> None:
        """Record epochs that trials have written but not reported, once the search is over or was cut off."""
        self.is_over = True
        for folder in sorted((self.folder / "trials").glob("*")):
            trial, changes = folder.name, read_changes(folder)
            if changes is None:
                continue
            reported = self.rows[trial].epochs if trial in self.rows else 0
            experiment = self.experiment.override_all(changes)
            for line in read_history(folder):
                if line["epoch"] > reported and line["validation_loss"] is not None:
                    report = read_scores(dict(line))
                    report |= self.plan.costs.get(experiment.model.name, {})
                    report |= {EPOCH: line["epoch"], "epochs": line["epoch"], "digest": experiment.digest()}
                    report |= {"seconds": line["seconds"]}
                    whole = line["epoch"] >= experiment.train.epochs
                    report |= {"whole": whole}
                    self.best_epochs.update(trial, report)
                    self.record(TrialEvent(trial, changes, report), at)
            if trial in self.rows and (folder / "ended.json").exists():  # before the search was resumed
                row = self.rows[trial]
                row.has_ended, row.is_complete = True, read_json(folder / "ended.json", TrialEnd)["whole"]

    def best(self, row: Row) -> dict[str, Any]:
        """The report of a trial's best epoch; empty before its first."""
        return self.best_epochs.get(row.trial) or {}

    def status(self, row: Row) -> str:
        """finished, stopped (early, by the scheduler), failed, running, or, once the search is over, unfinished."""
        if (self.folder / "trials" / row.trial / "error.txt").exists():
            return "failed"
        if row.is_complete:
            return "finished"
        return "stopped" if row.has_ended else "unfinished" if self.is_over else "running"

    def rank_rows(self, rows: dict[str, Row] | None = None) -> list[Row]:
        """Rows by the first objective, best first; stopped trials come after complete ones.

        The score of an incomplete training is mostly luck, and with few validation images luck would win.
        """
        rows = self.rows if rows is None else rows
        best = {name: self.best(row) for name, row in rows.items()}
        scored = [row for row in rows.values() if best[row.trial]]
        scored.sort(key=lambda row: (not row.is_complete, rank(self.experiment, best[row.trial])))
        return scored + [row for row in rows.values() if not best[row.trial]]

    def epoch_seconds(self) -> float | None:
        """The leading trial's recent epoch time, as if it had the machine to itself; None before the first epoch."""
        seconds = next((row.recent_epoch_seconds for row in self.rank_rows(self._rows_with_models)), ())
        return statistics.median(seconds) / self.plan.conclusion.trial_slowdown if seconds else None

    def pareto_front(self, rows: dict[str, Row] | None = None) -> list[Row]:
        """The trials on the Pareto front of all objectives, best first by the first objective."""
        scored = [row for row in self.rank_rows(rows) if self.best(row)]
        ranks = pareto_fronts([to_losses(self.best(row), self.experiment.search.objective) for row in scored])
        return [row for row, rank in zip(scored, ranks, strict=True) if rank == 0]

    @property
    def has_winner(self) -> bool:
        """Whether any trial has a score and a model."""
        return any(self.best(row) and self.has_model(row) for row in self.rows.values())

    def has_model(self, row: Row) -> bool:
        """Whether the trial's model is on disk, or was sent to the run's storage, as each is before its report."""
        try:
            bundle.find(self.folder / "trials" / row.trial)
        except RunError:
            return self.storage is not None
        return True

    def winner(self) -> tuple[RunFolder, Experiment]:
        """The run folder of the best trial that has a model, and its experiment. RunError if no trial has one."""
        ranked = [row for row in self.rank_rows() if self.best(row) and self.has_model(row)]
        if not ranked:
            errors = [p.read_text().strip() for p in sorted((self.folder / "trials").glob("*/error.txt"))]
            why = f"the first one failed: {errors[0]}" if errors else "give the search more minutes"
            what = "has a model any more" if any(map(self.best, self.rows.values())) else "finished an epoch"
            raise RunError(f"no trial of {self.folder} {what}; {why}")
        folder = self.folder / "trials" / ranked[0].trial
        experiment = read_experiment(folder / "experiment.yaml")
        experiment = dataclasses.replace(experiment, search=self.experiment.search)
        # The winner may run on another machine, and have all of it.
        machine_settings = {name: self.setting_value(ranked[0], name) for name in ("train.device", "train.precision")}
        return RunFolder(folder), experiment.override_all(
            machine_settings | {"train.threads": None, "workers.cpus": None}
        )

    def describe_trial(self, row: Row) -> str:
        """One line on an ended trial."""
        best = self.best(row)
        score = f"validation {best['accuracy']:.2%} loss {best['loss']:.3f}" if best else "no score"
        return f"trial {row.trial} {self.status(row)}, {row.epochs} epochs, {score}  {list_changes(row.changes)}"

    def setting_names(self) -> list[str]:
        """The settings that were searched or that a trial changes, in the order of the space."""
        changed = [name for row in self.rows.values() for name in row.changes]
        return list(dict.fromkeys((*self.plan.space, *changed)))

    def setting_value(self, row: Row, name: str) -> Any:
        """The value of a setting in a trial."""
        return row.changes.get(name, self.experiment.get(name))

    def table(self, limit: int = 12, *, is_live: bool = False) -> Table:
        """A table of the best rows, with what they change. is_live: a line for each, with fewer scores."""
        table = Table(box=None, pad_edge=False, expand=is_live)
        table.add_column("trial", no_wrap=True)
        scores = ("accuracy", "loss") if is_live else SCORES
        shown = dict.fromkeys((*scores, *(name for name in self.experiment.search.objective if name != "epochs")))
        for name in (*shown, "epochs"):
            table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        if is_live:  # the ratio leaves the other columns their width, where all that is in a line does not fit
            table.add_column("changes", overflow="ellipsis", no_wrap=True, ratio=1)
        else:
            table.add_column("changes", overflow="fold")
        for row in self.rank_rows()[:limit]:
            best = self.best(row)
            scores = [_format_score(name, best[name]) if name in best else "" for name in shown]
            table.add_row(row.trial, *scores, str(row.epochs), self.status(row), list_changes(row.changes))
        return table

    def write(self) -> None:
        """Write trials.parquet: a row per trial, best first, with a column per setting that was searched."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sources = {config.name: config.source for config in read_trial_configs(self.folder / "trials")}
        front = {row.trial for row in self.pareto_front()}
        names = self.setting_names()
        records = []
        for position, row in enumerate(self.rank_rows(), start=1):
            folder = self.folder / "trials" / row.trial
            best, error, halved = self.best(row), folder / "error.txt", folder / "halved.json"
            records.append(
                {"rank": position, "trial": row.trial, "status": self.status(row), "epochs": row.epochs}
                | {f"validation_{name}": best.get(name) for name in SCORES}
                | {f"validation_{name}": best[name] for name in TASK_SCORES if name in best}
                | {name: best.get(name) for name in ("latency", "latency_batch", "size") if name in best}
                | {"best_epoch": best.get(EPOCH), "on_front": row.trial in front, "at": row.best_at_seconds}
                | {"seconds": sum(line["seconds"] for line in read_history(folder))}
                | {"source": sources.get(row.trial, self.experiment.search.scheduler)}
                | {"digest": best.get("digest"), "error": error.read_text().strip() if error.exists() else None}
                | {"batch_halved": read_json(halved, HalvedBatch)["to"] if halved.exists() else None}
                | {name: self.setting_value(row, name) for name in names}
            )
        pq.write_table(pa.Table.from_pylist(escape_all(records)), self.folder / "trials.parquet")

    def _delete_models(self) -> None:
        """Delete models and checkpoints of ended trials, except for the best search.keep and the Pareto front."""
        # Only a model that is there can replace another.
        ranked = [row for row in self.rank_rows(self._rows_with_models) if self.has_model(row)]
        keep = {row.trial for row in ranked[: self.experiment.search.keep]}
        if len(self.experiment.search.objective) > 1:
            keep |= {row.trial for row in self.pareto_front(self._rows_with_models)}
        for row in list(self._rows_with_models.values()):
            if row.has_ended and row.trial not in keep:
                del self._rows_with_models[row.trial]
                folder = self.folder / "trials" / row.trial
                (folder / "bundle" / bundle.DOCUMENT).unlink(missing_ok=True)  # first: half a bundle is none
                for name in ("checkpoints", "bundle"):
                    shutil.rmtree(folder / name, ignore_errors=True)
                if self.storage is not None:
                    self._delete_stored_models(self.storage, f"trials/{row.trial}")

    def _delete_stored_models(self, storage: Storage, trial: str) -> None:
        """Delete an ended trial's models from storage; on failure they only take up space there."""
        with contextlib.suppress(OSError):
            # Without this file, a search resumed on another machine would train the trial again.
            storage.upload(self.folder / trial / "ended.json", f"{trial}/ended.json")
            for name in ("checkpoints", "bundle"):
                storage.remove(f"{trial}/{name}")


def _format_score(name: str, value: float) -> str:
    if name == "size":
        return f"{value:,.0f}"
    if name in ("accuracy", "macro_f1", "map"):
        return f"{value:.2%}"
    return f"{value:.2f}" if name == "latency" else f"{value:.3f}"
