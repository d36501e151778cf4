"""Runs the trials of a search with Ray Tune, each in a run folder of its own under OUT/NAME/trials/."""

import concurrent.futures
import dataclasses
import json
import math
import queue
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.stopper import Stopper

from classifier.config.experiment import Experiment
from classifier.errors import RunError
from classifier.search.space import Space, default_space
from classifier.storage.atomic import write_atomically

from ..launch import run_storage
from ..launch.cluster import DriverContext, connect, max_concurrent_trials, refuse_unshared
from ..launch.shared_dataset import SharedDataset
from ..steps.session import Session
from .best_epochs import BestEpochs
from .plan import SearchPlan
from .schedulers import EPOCH, make_scheduler, to_tune_domain
from .searcher import MAX_RESTARTS, Searcher, SearchHistory, quiet_optuna
from .trial import TrialActor
from .trial_config import trial_name

# How often the size of the cluster, which may grow or shrink, is checked.
POLL_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class TrialEvent:
    """The report of a trial's epoch, or the end of a trial."""

    trial: str
    changes: dict[str, Any]
    report: dict[str, Any]
    has_ended: bool = False


class SearchStopper(Stopper):
    """Stops the search when its time is up or the user interrupts it; used in the driver's process."""

    def __init__(
        self, seconds_left: Callable[[], float] = lambda: math.inf, is_interrupted: Callable[[], bool] = bool
    ) -> None:
        self.seconds_left, self.is_interrupted = seconds_left, is_interrupted
        self.has_ended = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.has_ended = self.has_ended or self.seconds_left() <= 0 or self.is_interrupted()
        return self.has_ended

    def __reduce__(self) -> Any:  # Tune pickles it with the experiment; the flag of a signal means nothing elsewhere
        return (SearchStopper, ())


class TrialCallback(tune.Callback):
    """Puts what trials report into a queue for the driver, and writes ended.json when a trial ends."""

    def __init__(
        self,
        trials: Path | None = None,
        stopper: SearchStopper | None = None,
        best_epochs: BestEpochs | None = None,
        has_given_up: Callable[[str], bool] | None = None,
    ) -> None:
        self.trials, self.stopper, self.best_epochs, self.has_given_up = trials, stopper, best_epochs, has_given_up
        self.queue: queue.Queue[TrialEvent] = queue.Queue()
        self.last_reports: dict[str, dict[str, Any]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        assert self.best_epochs is not None
        self.last_reports[trial.trial_id] = result
        self.best_epochs.update(result["folder"], result)
        self.queue.put(TrialEvent(result["folder"], read_trial_changes(trial), result))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end_trial(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        name = self._trial_folder_name(trial)
        if self.has_given_up is not None and not self.has_given_up(name):  # it will be restarted
            return
        assert self.trials is not None
        (self.trials / name).mkdir(parents=True, exist_ok=True)
        error = Path(trial.error_file).read_text().strip() if trial.error_file else "its process crashed"
        write_atomically(self.trials / name / "error.txt", error.rpartition("\n")[2] + "\n")
        self._end_trial(trial)

    def _end_trial(self, trial: Trial) -> None:
        assert self.trials is not None
        assert self.stopper is not None
        if self.stopper.has_ended:  # cut off: a resumed search continues it
            return
        result, folder = self.last_reports.get(trial.trial_id, {}), self.trials / self._trial_folder_name(trial)
        document = {"epoch": result.get(EPOCH, 0), "whole": result.get("whole", False)}
        if not (folder / "ended.json").exists():  # a trial ends once, however often the search is resumed
            write_atomically(folder / "ended.json", json.dumps(document) + "\n")
        self.queue.put(TrialEvent(folder.name, read_trial_changes(trial), result, has_ended=True))

    def _trial_folder_name(self, trial: Trial) -> str:
        return self.last_reports.get(trial.trial_id, {}).get("folder") or trial_name(read_trial_changes(trial))

    def __reduce__(self) -> Any:  # Tune pickles callbacks with the experiment
        return (TrialCallback, ())


def read_trial_changes(trial: Trial) -> dict[str, Any]:
    """What a trial changes of the search's experiment."""
    return {name: value for name, value in trial.config.items() if name != "start"}


class ConcurrencyLimit:
    """Returns how many trials the cluster, as it is now, can run at once."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan, self.check_time, self.count = plan, time.monotonic(), plan.max_concurrent

    def __call__(self) -> int:
        if time.monotonic() - self.check_time > POLL_SECONDS:
            self.check_time = time.monotonic()
            self.count = max(1, max_concurrent_trials(self.plan.experiment.workers, connect()))
        return self.count


def run_trials(
    session: Session,
    plan: SearchPlan,
    history: SearchHistory,
    seconds_left: Callable[[], float],
    best_epochs: BestEpochs,
) -> Generator[TrialEvent, None, None]:
    """Run trials until none is left or the time is up, and yield their reports as they arrive. Close it: trials stop.

    RunError if a trial trained another experiment than its configuration says.
    """
    experiment, folder = plan.experiment, session.run.folder.resolve()
    search, storage = experiment.search, session.run.storage
    quiet_optuna()
    refuse_unshared(session.run)
    trainable = tune.with_parameters(
        TrialActor,
        experiment=experiment.as_dict(),
        shared=SharedDataset.from_dataset(session.dataset, session.experiment.data),
        folder=str(folder / "trials"),
        storage=storage,
        costs=plan.costs,
        driver=DriverContext.current(),
    )
    stopper = SearchStopper(seconds_left, lambda: session.interrupts.stop_requested)
    param_space, algorithm = _make_algorithm(session, plan, history, best_epochs)
    has_searcher = isinstance(algorithm, Searcher)
    callback = TrialCallback(folder / "trials", stopper, best_epochs, algorithm.has_given_up if has_searcher else None)
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([plan.trial_resources])),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            # -1: as many as the searcher suggests.
            num_samples=-1 if has_searcher else max(search.trials, len(history.pending)),
            search_alg=algorithm,
            scheduler=make_scheduler(experiment, plan.space),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            # A new name each time: trials resume from their own folders, so Tune must not from its own.
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=f"{storage.root}/ray" if storage else str(folder / "ray"),
            storage_filesystem=storage.system if storage else None,
            stop=stopper,
            callbacks=[callback],
            # Tune gives up a trial that crashes while its actor starts, so the Searcher restarts trials instead.
            failure_config=tune.FailureConfig(max_failures=0 if has_searcher else MAX_RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the training loop writes its own
            verbose=0,
        ),
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # in a thread, Tune cannot replace our signal handlers
        search_done = pool.submit(tuner.fit)
        try:
            while not (search_done.done() and callback.queue.empty()):
                try:
                    event = callback.queue.get(timeout=0.3)
                except queue.Empty:
                    continue
                if not event.has_ended:  # the end repeats the last report
                    _check_trained_experiment(experiment, event)
                if event.has_ended and "error" in event.report:
                    run_storage.download_trials(session.run, event.trial)
                yield event
        finally:
            stopper.has_ended = True  # after an error here, the pool would wait for all trials
        search_done.result()
    run_storage.download_trials(session.run)


def _make_algorithm(
    session: Session, plan: SearchPlan, history: SearchHistory, best_epochs: BestEpochs
) -> tuple[dict[str, Any], Any]:
    """Tune's search space and algorithm: none and our Searcher, except for population-based training."""
    experiment = plan.experiment
    if experiment.search.scheduler == "pbt":  # takes no searcher: it changes the settings by itself
        points = [config.changes for config in history.pending]
        members = BasicVariantGenerator(points_to_evaluate=points, random_state=experiment.seed)
        return {"start": "", **{name: to_tune_domain(values) for name, values in plan.space.items()}}, members

    def make_space(changes: dict[str, Any]) -> Space:
        if plan.has_user_space:
            return plan.space
        return plan.exclude_architectures(default_space(experiment.override_all(changes), len(session.dataset.train)))

    trials = session.run.folder.resolve() / "trials"
    limit = ConcurrencyLimit(plan)
    searcher = Searcher(experiment, make_space, history, trials=trials, max_concurrent=limit, best_epochs=best_epochs)
    return {}, searcher


def _check_trained_experiment(experiment: Experiment, event: TrialEvent) -> None:
    if experiment.search.scheduler == "pbt" or "digest" not in event.report:
        return
    if event.report["digest"] != experiment.digest(event.changes):
        raise RunError(f"trial {event.trial} trained another experiment than its configuration: {event.changes}")
