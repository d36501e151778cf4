"""A search that is killed before any of its writes loses nothing, and ends with the model of its best trial.

Tune's part is played by a loop in this process: two trials take turns at random, and the driver hears of their reports
late. Before each change of a file the state of the disk is what a SIGKILL at that moment would leave.
"""

import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from classifier import data
from classifier.bundle import bundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import RunError
from classifier.runs.folder import RunFolder, read_history
from classifier.search.space import Interval, Space
from jobs.launch.cluster import DriverContext
from jobs.launch.shared_dataset import SharedDataset
from jobs.search.history import load_history, plan_lost_winner
from jobs.search.leaderboard import Leaderboard
from jobs.search.schedulers import make_scheduler
from jobs.search.searcher import Searcher, SearchHistory
from jobs.search.trial import TrialActor
from jobs.search.tuner import SearchStopper, TrialCallback
from tests.jobs.search.conftest import search_plan

TRIALS, EPOCHS = 6, 4
SPACE: Space = {"optimizer.lr": Interval(1e-4, 1e-1, log=True)}
EXPERIMENT = Experiment().override_all(
    {
        "model.name": "cnn",
        "data.limit": 64,
        "data.batch": 32,
        "train.epochs": EPOCHS,
        "train.threads": 1,
        "train.precision": "fp32",
        "search.trials": TRIALS,
        "search.grace": 1,
        "search.keep": 2,
        "search.algorithm": "random",
        "checkpoint.minutes": None,
    }
)
PLAN = search_plan(EXPERIMENT, SPACE, has_user_space=True, max_concurrent=2)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return data.load(EXPERIMENT.data)


@dataclass
class CrashPoints:
    """Calls `before_change` before each change of a file below `folder`, with its number."""

    folder: Path
    before_change: Callable[[int], None]
    count: int = 0
    last: str = ""
    """The file that was changed last."""
    is_inside: bool = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.is_inside or not self._is_change(event, arguments):
            return
        self.is_inside = True
        self.before_change(self.count)
        self.count, self.last = self.count + 1, str(arguments[0])
        self.is_inside = False

    def _is_change(self, event: str, arguments: tuple) -> bool:
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & 3  # O_WRONLY or O_RDWR
            return bool(writes) and str(arguments[0]).startswith(str(self.folder))
        if event not in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            return False
        path = str(arguments[0])  # relative, where shutil.rmtree removes what is in a folder
        return not path.startswith("/") or path.startswith(str(self.folder))


WATCHED: list[CrashPoints] = []


def hear(event: str, arguments: tuple) -> None:
    for points in WATCHED:
        points(event, arguments)


sys.addaudithook(hear)


@dataclass
class Driver:
    """Runs a search as Tune does, with two trials at once."""

    folder: Path
    dataset: Dataset
    rng: random.Random
    board: Leaderboard = field(init=False)

    def search(self) -> Leaderboard:
        """Run or resume the search to its end."""
        self.board = Leaderboard(RunFolder(self.folder), PLAN)
        self._run_trials(load_history(self.folder, PLAN, self.dataset))
        if lost := plan_lost_winner(PLAN, self.board):
            self._run_trials(lost)
        self.board.catch_up(0.0)
        return self.board

    def _run_trials(self, history: SearchHistory) -> None:
        trials, board = self.folder / "trials", self.board
        options = {"trials": trials, "max_concurrent": lambda: 2, "best_epochs": board.best_epochs}
        searcher = Searcher(EXPERIMENT, lambda _: SPACE, history, **options)
        callback = TrialCallback(trials, SearchStopper(), board.best_epochs, searcher.has_given_up)
        scheduler: Any = make_scheduler(EXPERIMENT, SPACE)
        running: list[tuple[Any, Any]] = []
        number, is_over = 0, False
        while running or not is_over:
            if len(running) < 2 and not is_over:
                trial = SimpleNamespace(trial_id=str(number), config={}, error_file=None)
                number += 1
                config = searcher.suggest(trial.trial_id)
                is_over = config == Searcher.FINISHED
                if isinstance(config, dict):
                    trial.config = config
                    scheduler.on_trial_add(None, trial)
                    running.append((trial, self._make_actor(config)))
            if running:
                trial, actor = self.rng.choice(running)
                result = actor.step()
                decision = scheduler.on_trial_result(None, trial, result)
                if decision != "STOP":
                    searcher.on_trial_result(trial.trial_id, result)
                callback.on_trial_result(0, [], trial, result)
                if decision == "STOP" or result["done"]:
                    running.remove((trial, actor))
                    scheduler.on_trial_complete(None, trial, result)
                    callback.on_trial_complete(0, [], trial)
                    searcher.on_trial_complete(trial.trial_id, result)
                    actor.cleanup()
            if self.rng.random() < 0.3 or not running:
                self._record(callback)
        self._record(callback)

    def _record(self, callback: TrialCallback) -> None:
        while not callback.queue.empty():
            self.board.record(callback.queue.get(), 0.0)

    def _make_actor(self, config: dict[str, Any]) -> TrialActor:
        actor = TrialActor.__new__(TrialActor)
        TrialActor.setup(
            actor,
            config,
            experiment=EXPERIMENT.as_dict(),
            shared=SharedDataset.from_dataset(self.dataset, EXPERIMENT.data),
            folder=str(self.folder / "trials"),
            storage=None,
            costs={},
            driver=DriverContext.current(),
        )
        return actor


def ended_trials(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    """What is on disk of the trials that have ended: their end and their history."""
    return {
        path.parent.name: (path.read_bytes(), (path.parent / "history.jsonl").read_bytes())
        for path in folder.glob("trials/*/ended.json")
    }


def losses(folder: Path) -> dict[tuple[str, int], float]:
    """The validation loss of each epoch of each trial."""
    trials = [path.parent for path in folder.glob("trials/*/history.jsonl")]
    return {(trial.name, row["epoch"]): row["validation_loss"] for trial in trials for row in read_history(trial)}


def has_model(folder: Path) -> bool:
    try:
        bundle.find(folder)
    except RunError:
        return False
    return True


def check_resumed(folder: Path, dataset: Dataset, unbroken: dict[tuple[str, int], float], seed: int) -> None:
    """Resume the search in this folder; it must lose nothing and end with the model of its best trial."""
    before = ended_trials(folder)
    board = Driver(folder, dataset, random.Random(seed)).search()
    now = ended_trials(folder)
    assert {name: now[name] for name in before} == before, "a trial that had ended has changed"
    assert len(now) == len(board.rows) == len(list(folder.glob("trials/*"))) == TRIALS
    for name, row in board.rows.items():
        epochs = [line["epoch"] for line in read_history(folder / "trials" / name)]
        assert epochs == list(range(1, row.epochs + 1))
        assert board.status(row) == ("finished" if row.epochs == EPOCHS else "stopped")
    resumed = losses(folder)
    assert {key: resumed[key] for key in resumed.keys() & unbroken.keys()} == {
        key: unbroken[key] for key in resumed.keys() & unbroken.keys()
    }
    winner, best = board.winner()[0], board.rank_rows()[0]
    assert winner.folder.name == best.trial, "the best trial has no model"
    about, _ = bundle.load(winner.folder)
    assert about.scores["validation"]["accuracy"] == board.best(best)["accuracy"]


def check_points(tmp_path: Path, dataset: Dataset, seed: int, *, every: int) -> None:
    """Kill a search before every n-th change, resume each, and compare with the search that was not killed."""
    folder, copies = tmp_path / "search", tmp_path / "copies"
    copies.mkdir()
    seen = []

    def before_change(number: int) -> None:
        trials = [path.parent for path in folder.glob("trials/*/history.jsonl") if read_history(path.parent)]
        assert not trials or any(map(has_model, trials)), f"no model is left before change {number}"
        if number % every == seed % every:
            shutil.copytree(folder, copies / str(number))
            seen.append(str(number))
            if points.last.endswith("history.jsonl"):  # a full disk may leave a part of the line
                shutil.copytree(folder, copies / f"{number} torn")
                torn = copies / f"{number} torn" / Path(points.last).relative_to(folder)
                torn.write_bytes(torn.read_bytes()[:-20])
                seen.append(f"{number} torn")

    folder.mkdir()
    points = CrashPoints(folder, before_change)
    WATCHED.append(points)
    try:
        Driver(folder, dataset, random.Random(seed)).search()
    finally:
        WATCHED.remove(points)
    assert points.count > 100, "few changes were seen"
    unbroken = losses(folder)
    for number in seen:
        check_resumed(copies / number, dataset, unbroken, seed=int(number.partition(" ")[0]))
        shutil.rmtree(copies / number)


def test_search_killed_at_some_of_its_writes(tmp_path, dataset):
    check_points(tmp_path, dataset, seed=1, every=53)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_search_killed_before_every_write(tmp_path, dataset, seed):
    check_points(tmp_path, dataset, seed, every=1)
