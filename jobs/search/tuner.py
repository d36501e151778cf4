"""Ray Tune's part of a search: samples become trials, each a run folder of its own under OUT/NAME/trials/."""

import concurrent.futures
import dataclasses
import json
import math
import os
import queue
import time
from collections.abc import Callable, Iterator
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
from jobs.launch import run_storage
from jobs.launch.cluster import connect, max_concurrent_trials, refuse_unshared
from jobs.launch.shared_dataset import SharedDataset
from jobs.search.best_epochs import BestEpochs
from jobs.search.plan import SearchPlan
from jobs.search.schedulers import EPOCH, domain, scheduler
from jobs.search.searcher import DEATHS, Guide, Past, quiet_optuna
from jobs.search.trial import TrialActor
from jobs.search.trial_config import trial_name
from jobs.steps.session import Session

# The cluster may grow or shrink: how often that is looked at, in seconds.
LOOK_EVERY = 5.0


@dataclasses.dataclass(frozen=True)
class Event:
    """What a trial said: the report of an epoch, or that it ended."""

    trial: str
    sample: dict[str, Any]
    report: dict[str, Any]
    ended: bool = False


class Budget(Stopper):
    """Ends the search when its time is up or the user asked; lives in the driver's process."""

    def __init__(self, left: Callable[[], float] = lambda: math.inf, asked: Callable[[], bool] = bool) -> None:
        self.left, self.asked = left, asked
        self.ended = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self.ended = self.ended or self.left() <= 0 or self.asked()
        return self.ended

    def __reduce__(self) -> Any:  # Tune pickles it with the experiment; a signal's flag has no meaning elsewhere
        return (Budget, ())


class Events(tune.Callback):
    """Hands the driver what trials report, through a queue, and marks the folder of each that came to its end."""

    def __init__(
        self,
        trials: Path | None = None,
        budget: Budget | None = None,
        best: BestEpochs | None = None,
        gives_up: Callable[[str], bool] | None = None,
    ) -> None:
        self.trials, self.budget, self.best, self.gives_up = trials, budget, best, gives_up
        self.queue: queue.Queue[Event] = queue.Queue()
        self.last: dict[str, dict[str, Any]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        assert self.best is not None
        self.last[trial.trial_id] = result
        self.best.update(result["folder"], result)
        self.queue.put(Event(result["folder"], settings_of(trial), result))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        name = self._name(trial)
        if self.gives_up is not None and not self.gives_up(name):  # it is handed out again
            return
        assert self.trials is not None
        (self.trials / name).mkdir(parents=True, exist_ok=True)
        said = Path(trial.error_file).read_text().strip() if trial.error_file else "its process died"
        write_atomically(self.trials / name / "error.txt", said.rpartition("\n")[2] + "\n")
        self._ended(trial)

    def _ended(self, trial: Trial) -> None:
        assert self.trials is not None
        assert self.budget is not None
        if self.budget.ended:  # cut off, not ended: a resumed search goes on with it
            return
        result, folder = self.last.get(trial.trial_id, {}), self.trials / self._name(trial)
        document = {"epoch": result.get(EPOCH, 0), "whole": result.get("whole", False)}
        write_atomically(folder / "ended.json", json.dumps(document) + "\n")
        self.queue.put(Event(folder.name, settings_of(trial), result, ended=True))

    def _name(self, trial: Trial) -> str:
        return self.last.get(trial.trial_id, {}).get("folder") or trial_name(settings_of(trial))

    def __reduce__(self) -> Any:  # Tune pickles callbacks with the experiment
        return (Events, ())


def settings_of(trial: Trial) -> dict[str, Any]:
    """What a trial changes of the search's experiment."""
    return {name: value for name, value in trial.config.items() if name != "start"}


class Places:
    """How many trials can be placed at once on the cluster as it is now."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan, self.looked, self.count = plan, time.monotonic(), plan.at_once

    def __call__(self) -> int:
        if time.monotonic() - self.looked > LOOK_EVERY:
            self.looked = time.monotonic()
            self.count = max(1, max_concurrent_trials(self.plan.experiment.workers, connect()))
        return self.count


def run_trials(work: Session, plan: SearchPlan, past: Past, left: Callable[[], float], best: BestEpochs) -> Iterator[Event]:
    """Run the search while seconds are left, or to its end; yield what its trials report, as they report it.

    RunError if a trial trained another experiment than was sampled for it.
    """
    experiment, folder = plan.experiment, work.run.folder.resolve()
    search, storage = experiment.search, work.run.storage
    quiet_optuna()
    refuse_unshared(work.run)
    trainable = tune.with_parameters(
        TrialActor,
        experiment=experiment.as_dict(),
        shared=SharedDataset.from_dataset(work.dataset, work.experiment.data),
        folder=str(folder / "trials"),
        storage=work.run.storage,
        costs=plan.costs,
        cwd=os.getcwd(),
    )
    budget = Budget(left, lambda: work.interrupts.stop_requested)
    param_space, algorithm = _algorithm(work, plan, past, best)
    is_guided = isinstance(algorithm, Guide)
    events = Events(folder / "trials", budget, best, algorithm.has_given_up if is_guided else None)
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([plan.reserved])),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            num_samples=-1 if is_guided else max(search.trials, len(past.first)),  # the Guide knows the end
            search_alg=algorithm,
            scheduler=scheduler(experiment, plan.space),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            # A new name each time: trials go on from their own folders, so Tune must not from its own.
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=f"{storage.root}/ray" if storage else str(folder / "ray"),
            storage_filesystem=storage.system if storage else None,
            stop=budget,
            callbacks=[events],
            # Tune gives up a trial that dies while its process is made ready: the Guide hands it out again.
            failure_config=tune.FailureConfig(max_failures=0 if is_guided else DEATHS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the loop keeps its own
            verbose=0,
        ),
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # Tune's own signal handlers must not replace ours
        search_done = pool.submit(tuner.fit)
        while not (search_done.done() and events.queue.empty()):
            try:
                event = events.queue.get(timeout=0.3)
            except queue.Empty:
                continue
            if not event.ended:  # the end says again what was reported
                _refuse_another(experiment, event)
            if event.ended and "error" in event.report:
                run_storage.download_trials(work.run, event.trial)
            yield event
        search_done.result()
    run_storage.download_trials(work.run)


def _algorithm(work: Session, plan: SearchPlan, past: Past, best: BestEpochs) -> tuple[dict[str, Any], Any]:
    """What draws the samples, with Tune's own search space where that is not the Guide."""
    experiment = plan.experiment
    if experiment.search.scheduler == "pbt":  # which takes no searcher: it changes the samples by itself
        points = [sample.changes for sample in past.first]
        members = BasicVariantGenerator(points_to_evaluate=points, random_state=experiment.seed)
        return {"start": "", **{name: domain(values) for name, values in plan.space.items()}}, members

    def space_around(changes: dict[str, Any]) -> Space:
        if plan.is_own:
            return plan.space
        return plan.trimmed(default_space(experiment.override_all(changes), len(work.dataset.train)))

    trials = work.run.folder.resolve() / "trials"
    return {}, Guide(experiment, space_around, past, trials=trials, at_once=Places(plan), best=best)


def _refuse_another(experiment: Experiment, event: Event) -> None:
    if experiment.search.scheduler == "pbt" or "digest" not in event.report:
        return
    if event.report["digest"] != experiment.override_all(event.sample).digest():
        raise RunError(f"trial {event.trial} did not train what was sampled for it: {event.sample}")
