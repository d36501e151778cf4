"""What a search knows when it starts or resumes: its own folder, an earlier search, and the time spent."""

import dataclasses
import hashlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from classifier.config.documents import read_json, read_rows
from classifier.data.dataset import Dataset
from classifier.errors import RunError
from classifier.runs.folder import RunFolder, read_history, read_result
from classifier.runs.schema import BegunWith, SpaceFile, SpentSeconds, TrialRow
from classifier.search.budget import MAX_REFIT_SHARE
from classifier.search.space import parse_space
from classifier.storage.atomic import write_atomically

from ..cli.environment import VERBS
from .leaderboard import Leaderboard
from .plan import SearchPlan
from .searcher import Observation, SearchHistory, initial_configs
from .trial_budget import ACTOR_START_SECONDS, TIME_MARGIN
from .trial_config import TrialConfig, is_trial_name, read_changes, read_trial_configs, remove_duplicates

# Seconds between writes of the time spent.
SAVE_SECONDS = 5.0
# How many of the best trials of search.start_from are repeated.
MAX_EARLIER_TRIALS = 3
# A longer training must have at least this many times the epochs of a trial.
MIN_LONGER_FACTOR = 1.5


def load_history(folder: Path, plan: SearchPlan, dataset: Dataset) -> SearchHistory:
    """The search's own earlier trials; until it draws its first one, also the initial ones and search.start_from."""
    search, trials = plan.experiment.search, folder / "trials"
    start, observations = (
        _read_earlier_search(Path(search.start_from), plan, dataset) if search.start_from else ([], [])
    )
    if search.scheduler == "pbt":
        histories = sorted(trials.glob("*/history.jsonl"))
        own = [
            TrialConfig({"start": path.parent.name} | (read_changes(path.parent) or {}), "resumed")
            for path in histories
        ]
    else:
        for trial in [path for path in trials.glob("*") if is_trial_name(path.name)]:
            if not (trial / "sample.json").exists():  # killed before it was written: the trial never started
                shutil.rmtree(trial, ignore_errors=True)
        own = read_trial_configs(trials)
    space_file = folder / "space.json"
    if not space_file.exists():  # not all initial trials have been started
        first = initial_configs(plan.experiment, plan.space, plan.portfolio)
        known = [first[0], *start, *first[1:]]
        if search.scheduler == "pbt" and own:  # its members have changed, and none is initial any more
            known = []
        return SearchHistory(pending=remove_duplicates([*own, *known]), observations=observations)
    document = read_json(space_file, SpaceFile)
    space = parse_space((), document["space"], plan.experiment, len(dataset.train))
    return SearchHistory(pending=own, observations=observations, base_changes=document["base"], space=space)


def unfinished_history(folder: Path, plan: SearchPlan, dataset: Dataset, board: Leaderboard) -> SearchHistory:
    """The rest of a search whose minutes hold no longer training: trials that were cut off, then new ones."""
    history, trials = load_history(folder, plan, dataset), folder / "trials"
    done = [
        row
        for row in board.rows.values()
        if any((trials / row.trial / file).exists() for file in ("ended.json", "error.txt"))
    ]
    done_names = {row.trial for row in done}
    pending = [config for config in history.pending if config.name not in done_names]
    observations = [Observation(row.changes, best) for row in done if (best := board.best(row))]
    return dataclasses.replace(
        history, pending=pending, observations=[*history.observations, *observations], done_count=len(done)
    )


def _read_earlier_search(
    folder: Path, plan: SearchPlan, dataset: Dataset
) -> tuple[list[TrialConfig], list[Observation]]:
    """The earlier search's best trials, to repeat; and all its finished trials, if images and epochs were the same."""
    rows: list[dict[str, Any]] = [dict(row) for row in read_rows(folder / "trials.parquet", TrialRow)]
    earlier, base = read_result(folder), plan.experiment
    names = [name for name in rows[0] if "." in name]
    configs = [
        TrialConfig({name: row[name] for name in names if row[name] != base.get(name)}, "start_from")
        for row in rows[:MAX_EARLIER_TRIALS]
    ]
    earlier_epochs = earlier["config"]["train"]["epochs"]
    if earlier["dataset"]["fingerprint"] != dataset.fingerprint or earlier_epochs != base.train.epochs:
        return configs, []
    observations = [
        Observation(
            {name: row[name] for name in names},
            {name: row[f"validation_{name}"] for name in base.search.objective if f"validation_{name}" in row},
        )
        for row in rows
        if row["status"] == "finished"
    ]
    return configs, [one for one in observations if len(one.scores) == len(base.search.objective)]


def check_unchanged(folder: Path, dataset: Dataset) -> list[str]:
    """Record code and data of a new search; for a resumed one, return a note if the code has changed.

    RunError if images, labels or splits changed: trials could not be compared.
    """
    path = folder / "begun_with.json"
    now = {"code": code_digest(), "dataset": dataset.fingerprint}
    before = read_json(path, BegunWith) if path.exists() else now
    if before["dataset"] != now["dataset"]:
        raise RunError(
            f"{folder} was started on other images, labels or splits than {dataset.name} has now: restore them, or "
            "start a new search"
        )
    write_atomically(path, json.dumps(now) + "\n")
    return ["note: the code has changed since this search started"] if before["code"] != now["code"] else []


def code_digest() -> str:
    """16 hex digits over the source code of both packages."""
    digest = hashlib.sha256()
    for path in sorted((*(VERBS.parent / "classifier").rglob("*.py"), *VERBS.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class SearchClock:
    """Counts the seconds that a search has used, in earlier processes and before its first trial too."""

    def __init__(self, run: RunFolder, plan: SearchPlan) -> None:
        self.path, self.plan = run.folder / "spent.json", plan
        self.earlier_seconds = read_json(self.path, SpentSeconds)["seconds"] if self.path.exists() else 0.0
        self.save_time = time.monotonic()
        self.start_time = self.save_time - run.seconds
        # Planning took time, too: trials and the refit share what is left.
        shared = max(
            0.0,
            self.budget_seconds()
            - self.spent_seconds()
            - plan.conclusion.seconds_without_refit(plan.conclusion.epoch_seconds)
            - plan.conclusion.refit_start_seconds,
        )
        self.conclusion = dataclasses.replace(
            plan.conclusion, max_refit_seconds=min(plan.conclusion.max_refit_seconds, MAX_REFIT_SHARE * shared)
        )
        self.conclusion_seconds = self.conclusion.total_seconds()
        self.can_conclude, self.test_seconds = False, 0.0

    def elapsed_seconds(self) -> float:
        """Seconds until now; saved every few seconds, for a process that resumes the search."""
        if time.monotonic() - self.save_time > SAVE_SECONDS:
            self.save_time = time.monotonic()
            write_atomically(self.path, json.dumps({"seconds": round(self.spent_seconds(), 1)}) + "\n")
        return self.spent_seconds()

    def spent_seconds(self) -> float:
        """Seconds until now."""
        return self.earlier_seconds + time.monotonic() - self.start_time

    def total_seconds_left(self) -> float | None:
        """Seconds left of search.minutes, the search's conclusion included; None without a limit."""
        left = self.budget_seconds() - self.spent_seconds()
        return max(0.0, left) if math.isfinite(left) else None

    def seconds_left(self, share: float = 1.0) -> float:
        """Seconds left for trials: of this share of the minutes, without the search's conclusion."""
        return max(0.0, share * (self.budget_seconds() - self.conclusion_seconds) - self.spent_seconds())

    def trial_seconds_left(self, share: float = 1.0) -> float:
        """As `seconds_left`, but all that the test leaves until a trial is complete, if no refit is worthwhile before.

        While no trial has finished an epoch there is nothing to test.
        """
        if self.can_conclude:
            return self.seconds_left(share)
        return max(0.0, self.budget_seconds() - self.test_seconds - self.spent_seconds())

    def training_seconds_left(self, epoch_seconds: float, *, from_refit: bool = False) -> float:
        """Seconds left for trials and the refit together.

        epoch_seconds: of one epoch that has the machine to itself. from_refit: for the refit alone, which starts now.
        """
        other_seconds = self.conclusion.seconds_without_refit(epoch_seconds, from_refit=from_refit)
        return self.budget_seconds() - other_seconds - self.spent_seconds()

    def update(self, board: Leaderboard) -> None:
        """Estimate the conclusion from the leading trial's measured speed and its epochs."""
        if self.plan.experiment.search.minutes and (epoch_seconds := board.epoch_seconds()):
            leader = board.rank_rows()[0]
            epochs = leader.changes.get("train.epochs", self.conclusion.refit_epochs)
            longest = max(row.changes.get("train.epochs", 0) for row in board.rows.values())
            if longest > self.plan.experiment.train.epochs:  # the longer trial has begun
                epochs = max(epochs, longest)
            self.conclusion_seconds = self.conclusion.total_seconds(epoch_seconds, epochs)
            self.test_seconds = self.conclusion.seconds_without_refit(epoch_seconds)
            can_refit = self.conclusion.is_refit_worthwhile(epoch_seconds, leader.epochs)
            self.can_conclude = can_refit or any(row.is_complete for row in board.rows.values())

    def budget_seconds(self) -> float:
        """search.minutes in seconds; infinity without a limit."""
        minutes = self.plan.experiment.search.minutes
        return math.inf if minutes is None else 60 * minutes


def plan_lost_winner(plan: SearchPlan, board: Leaderboard) -> SearchHistory | None:
    """The best trial once more, from its start, if the models of all trials are gone; else None."""
    scored = [row for row in board.rank_rows() if board.best(row)]
    if not scored or any(map(board.has_model, scored)) or plan.experiment.search.scheduler == "pbt":
        return None
    folder = board.folder / "trials" / scored[0].trial
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in ("ended.json", "history.jsonl"):
        (folder / name).unlink(missing_ok=True)
    configs = [config for config in read_trial_configs(board.folder / "trials") if config.name == scored[0].trial]
    return SearchHistory(pending=configs, done_count=len(board.rows))


def plan_longer_trial(plan: SearchPlan, board: Leaderboard, clock: SearchClock) -> SearchHistory | None:
    """One more trial: the best settings with as many epochs as fit into the time left. None if too few do."""
    rows = [row for row in board.rank_rows() if row.is_complete]
    if (
        (plan.search_share == 1 and not plan.is_single)
        or not rows
        or any(row.changes.get("train.epochs", 0) > plan.experiment.train.epochs for row in board.rows.values())
        or "train.epochs" in rows[0].changes  # the number of epochs is part of the settings
    ):
        return None
    best = rows[0]
    history = read_history(board.folder / "trials" / best.trial)
    # Other trials beside it can only have made it slower.
    step_seconds = sum(line["seconds"] for line in history) / len(history)
    # Validation and checkpoints come on top of the steps, and the refit has as many epochs again.
    epoch_seconds = (plan.epoch_overhead + plan.conclusion.refit_epoch_factor) * step_seconds
    seconds_left = clock.training_seconds_left(step_seconds)
    if math.isinf(seconds_left):  # without a time limit there is no rest to use
        return None
    epochs = int(TIME_MARGIN * (seconds_left - ACTOR_START_SECONDS) / epoch_seconds)
    if epochs < MIN_LONGER_FACTOR * plan.experiment.train.epochs:
        return None
    config = TrialConfig(best.changes | {"train.epochs": epochs}, "longer")
    return SearchHistory(pending=[config], done_count=len(board.rows))
