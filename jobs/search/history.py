"""What a search knows when it begins or is taken up again, read from its own folder and from an earlier search's."""

import dataclasses
import hashlib
import json
import math
import shutil
import time
from pathlib import Path

from classifier.data.dataset import Dataset
from classifier.errors import RunError
from classifier.runs.folder import Run, read_history, read_result
from classifier.search.budget import MAX_REFIT_SHARE
from classifier.search.space import space_from
from classifier.storage.atomic import write_atomically
from jobs.cli.environment import VERBS
from jobs.search.leaderboard import Leaderboard
from jobs.search.plan import SearchPlan
from jobs.search.searcher import Past, Seen, first_samples
from jobs.search.trial_config import TrialConfig, read_changes, read_trial_configs, unique

# Seconds between two writings of the time spent.
SAVE_EVERY = 5.0
# Trials of an earlier search that are tried again, its best.
BEST_OF_EARLIER = 3
# A longer training must be so many times as long to be worth it; it is planned with some room, and a process's start.
LONGER, SAFE, ACTOR_SECONDS = 1.5, 0.92, 8.0


def past_of(folder: Path, plan: SearchPlan, dataset: Dataset) -> Past:
    """What the search knows already: its own earlier trials, or else what it begins with and was told to start from."""
    search, trials = plan.experiment.search, folder / "trials"
    start, seen = _from_earlier(Path(search.start_from), plan, dataset) if search.start_from else ([], [])
    if search.scheduler == "pbt":
        journals = sorted(trials.glob("*/history.jsonl"))
        mine = [
            TrialConfig({"start": path.parent.name} | (read_changes(path.parent) or {}), "resumed") for path in journals
        ]
    else:
        for trial in [path for path in trials.glob("*") if not (path / "sample.json").exists()]:
            shutil.rmtree(trial)  # the search was killed as it wrote the sample: the trial never began
        mine = read_trial_configs(trials)
    drawn = folder / "space.json"
    if not drawn.exists():  # what is known to be good was not all handed out
        first = first_samples(plan.experiment, plan.space, plan.portfolio)
        known = [first[0], *start, *first[1:]]
        if search.scheduler == "pbt" and mine:  # its members change, and are none of these any more
            known = []
        return Past(first=unique([*mine, *known]), seen=seen)
    document = json.loads(drawn.read_text())
    space = space_from((), document["space"], plan.experiment, len(dataset.train))
    return Past(first=mine, seen=seen, base=document["base"], space=space)


def rest(folder: Path, plan: SearchPlan, dataset: Dataset, board: Leaderboard) -> Past:
    """What is left of a search in whose minutes no longer training fits: trials that were cut off, then new ones."""
    past, trials = past_of(folder, plan, dataset), folder / "trials"
    over = [
        row
        for row in board.rows.values()
        if any((trials / row.trial / n).exists() for n in ("ended.json", "error.txt"))
    ]
    first = [sample for sample in past.first if sample.name not in {row.trial for row in over}]
    seen = [Seen(row.sample, best) for row in over if (best := board.best(row))]
    return dataclasses.replace(past, first=first, seen=[*past.seen, *seen], tried=len(over))


def _from_earlier(folder: Path, plan: SearchPlan, dataset: Dataset) -> tuple[list[TrialConfig], list[Seen]]:
    """The earlier search's best settings as trials, and all its trials as seen, where the images were the same."""
    import pyarrow.parquet as pq

    rows, earlier, base = pq.read_table(folder / "trials.parquet").to_pylist(), read_result(folder), plan.experiment
    names = [name for name in rows[0] if "." in name]
    samples = [
        TrialConfig({name: row[name] for name in names if row[name] != base.get(name)}, "start_from")
        for row in rows[:BEST_OF_EARLIER]
    ]
    before = earlier["config"]["train"]["epochs"]
    if earlier["dataset"]["fingerprint"] != dataset.fingerprint or before != base.train.epochs:
        return samples, []
    seen = [
        Seen(
            {name: row[name] for name in names},
            {name: row[f"validation_{name}"] for name in base.search.objective if f"validation_{name}" in row},
        )
        for row in rows
        if row["status"] == "finished"
    ]
    return samples, [one for one in seen if len(one.scores) == len(base.search.objective)]


def changed_since(folder: Path, dataset: Dataset) -> list[str]:
    """Remember what the search was begun with; on a later call, say what is not so any more.

    RunError if the images, labels or splits changed: the trials could not be compared.
    """
    path = folder / "begun_with.json"
    now = {"code": code_digest(), "dataset": dataset.fingerprint}
    before = json.loads(path.read_text()) if path.exists() else now
    if before["dataset"] != now["dataset"]:
        raise RunError(
            f"{folder} was begun on other images, labels or splits than {dataset.name} holds now: bring them back as "
            "they were, or begin a new search"
        )
    write_atomically(path, json.dumps(now) + "\n")
    return ["note: the code has changed since this search began"] if before["code"] != now["code"] else []


def code_digest() -> str:
    """16 hex digits over the source of both packages."""
    digest = hashlib.sha256()
    for path in sorted((*(VERBS.parent / "classifier").rglob("*.py"), *VERBS.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Clock:
    """Seconds that a search has used, those before its first trial and those of earlier processes counted in."""

    def __init__(self, run: Run, plan: SearchPlan) -> None:
        self.path, self.plan = run.folder / "spent.json", plan
        self.before = json.loads(self.path.read_text())["seconds"] if self.path.exists() else 0.0
        self.saved = time.monotonic()
        self.began = self.saved - run.seconds
        # The plan has taken its time too: what is left is shared by the trials and the last training.
        shared = max(
            0.0,
            self._all()
            - self._spent()
            - plan.end.seconds_without_refit(plan.end.epoch_seconds)
            - plan.end.refit_start_seconds,
        )
        self.end = dataclasses.replace(
            plan.end, max_refit_seconds=min(plan.end.max_refit_seconds, MAX_REFIT_SHARE * shared)
        )
        self.ending = self.end.total_seconds()

    def seconds(self) -> float:
        """Until now; kept on disk, every few seconds, for a process that takes over."""
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.saved = time.monotonic()
            write_atomically(self.path, json.dumps({"seconds": round(self._spent(), 1)}) + "\n")
        return self._spent()

    def _spent(self) -> float:
        return self.before + time.monotonic() - self.began

    def left(self, share: float = 1.0) -> float:
        """For trials: what is left of this share of the minutes, without what the end will take."""
        return max(0.0, share * (self._all() - self.ending) - self._spent())

    def left_to_train(self, alone: float, *, is_late: bool = False) -> float:
        """For trials and the last training together, where an epoch takes so long, alone on the machine.

        is_late: for the last training, which now begins.
        """
        return self._all() - self.end.seconds_without_refit(alone, from_refit=is_late) - self._spent()

    def hear(self, board: Leaderboard) -> None:
        """Go by what trials really take: the one that leads would be trained last, for as long as the longest."""
        if self.plan.experiment.search.minutes and (alone := board.epoch_seconds()):
            longest = max(row.sample.get("train.epochs", 0) for row in board.rows.values())
            self.ending = self.end.total_seconds(alone, max(longest, self.end.refit_epochs))

    def _all(self) -> float:
        minutes = self.plan.experiment.search.minutes
        return math.inf if minutes is None else 60 * minutes


def longer(plan: SearchPlan, board: Leaderboard, clock: Clock) -> Past | None:
    """One more trial: the best settings with as many epochs as the time that is left holds. None where few are."""
    rows = [row for row in board.ranked() if row.whole]
    if plan.search_share == 1 or not rows or any("train.epochs" in row.sample for row in board.rows.values()):
        return None
    best = rows[0]
    history = read_history(board.folder / "trials" / best.trial)
    # What ran beside it made it slower, not faster.
    steps = sum(line["seconds"] for line in history) / len(history)
    # Validation and checkpoints are beside the steps, and the last training has as many epochs.
    an_epoch = (plan.beside + plan.end.refit_epoch_factor) * steps
    epochs = int(SAFE * (clock.left_to_train(steps) - ACTOR_SECONDS) / an_epoch)
    if epochs < LONGER * plan.experiment.train.epochs:
        return None
    sample = TrialConfig(best.sample | {"train.epochs": epochs}, "longer")
    return Past(first=[sample], tried=len(board.rows))
