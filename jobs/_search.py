"""Ray Tune's part of a search: samples become trials, each a run folder of its own under OUT/NAME/trials/."""

import concurrent.futures
import dataclasses
import math
import queue
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import Stopper

from classifier import data
from classifier.config import Experiment, flatten
from classifier.data.dataset import Dataset
from classifier.distributed import Group, pick_device
from classifier.errors import RunError
from classifier.files import write_atomically
from classifier.recorded import recorded
from classifier.resolve import resolve
from classifier.run import Run, read_yaml
from classifier.space import Choice, Interval, Space, space_from
from jobs import _ray
from jobs._voice import heard
from jobs._work import Work

# Tune stops a trial on this name, and draws its rungs on it.
EPOCH = "epoch"
MODES = {"accuracy": "max", "macro_f1": "max", "loss": "min"}
CRUMB = 0.01


@dataclasses.dataclass(frozen=True)
class Event:
    """What a trial said: the report of an epoch, or none where it failed."""

    trial: str
    sample: dict[str, Any]
    report: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search will do: the experiment that its trials change, what they change, and how many run at once."""

    experiment: Experiment
    space: Space
    at_once: int
    reserved: dict[str, float]

    def __str__(self) -> str:
        search = self.experiment.search
        budget = f"{search.trials} trials of {self.experiment.train.epochs} epochs at most, {self.at_once} at once"
        budget += f", {search.minutes:g} minutes" if search.minutes else ""
        ranges = "".join(f"\n  {name:<22} {values}" for name, values in self.space.items())
        return f"search {budget}, by {search.algorithm} and {search.scheduler}:{ranges}"


def plan(experiment: Experiment, dataset: Dataset) -> Plan:
    """Check a search before anything starts. ConfigError on a bad space, or trials that the cluster cannot hold."""
    search = experiment.search
    file = read_yaml(search.space) if search.space else {}
    space = space_from(search.vary, flatten(file) if isinstance(file, dict) else file, experiment, len(dataset.train))
    if search.epochs:
        experiment = experiment.override("train.epochs", search.epochs)
    cluster = _ray.connect(dashboard=experiment.workers.count > 1)
    _ray.refuse_unplaceable(experiment.workers, cluster)
    needs = _ray.needs(experiment.workers, cluster)
    count = experiment.workers.count
    at_once = min(int(cluster[name] / (amount * count) + 1e-9) for name, amount in needs.items())
    # A trial of several workers only waits for them: its own process needs a crumb of a core (0 is refused), and one
    # group's place must stay free of the crumbs, or no group could start.
    reserved = needs
    if count > 1:
        reserved = {"CPU": CRUMB}
        at_once = max(1, int((cluster["CPU"] - CRUMB * at_once) / (needs["CPU"] * count)))
    return Plan(experiment, space, min(at_once, search.trials), reserved)


class TrialActor(tune.Trainable):
    """One trial after another in one process: a step of Tune is an epoch of ours."""

    def setup(self, config: dict[str, Any], *, experiment: dict[str, Any], dataset: Dataset, folder: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.base, self.dataset, self.folder = Experiment.from_dict(experiment), dataset, Path(folder)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._rows.close()
        self._begin(new_config)
        return True

    def _begin(self, sample: dict[str, Any]) -> None:
        self.experiment = self.base.override_all(sample)
        self.digest = self.experiment.digest()
        self._rows = self._trained(Run(self.folder / self.trial_id))
        self._last: dict[str, Any] = {}

    def _trained(self, run: Run) -> Generator[dict[str, Any], None, None]:
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            with heard(run.folder, f"trial {run.folder.name}"):
                if self.experiment.workers.count > 1:
                    yield from _ray.train(run, self.experiment, should_stop=lambda: False)
                    return
                dataset = self.dataset
                if self.experiment.data != dataclasses.replace(self.base.data, batch=self.experiment.data.batch):
                    dataset = data.load(self.experiment.data)
                resolved = resolve(self.experiment, dataset)
                run.write_experiment(resolved)
                group = Group(device=pick_device(resolved.train.device))
                yield from (epoch.row() for epoch in recorded(run, resolved, dataset, group=group))
        except Exception as error:
            write_atomically(run.folder / "error.txt", f"{error}\n")
            raise

    def step(self) -> dict[str, Any]:
        row = next(self._rows, None)
        if row is None:  # patience ended the trial
            return self._last | {"done": True}
        is_last = row[EPOCH] >= self.experiment.train.epochs
        if is_last:
            next(self._rows, None)  # the last epoch's checkpoint is committed
        scores = {name: row[f"validation_{name}"] for name in MODES}
        self._last = {EPOCH: row[EPOCH], "digest": self.digest, "done": is_last} | scores
        return self._last

    def cleanup(self) -> None:
        self._rows.close()


class Budget(Stopper):
    """Ends the search when its time is up or the user asked; lives in the driver's process."""

    def __init__(self, seconds: float, asked: Callable[[], bool]) -> None:
        self.deadline, self.asked = time.time() + seconds, asked

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.time() > self.deadline or self.asked()

    def __reduce__(self) -> Any:  # Tune pickles it with the experiment; a signal's flag has no meaning elsewhere
        return (Budget, (math.inf, bool))


class Events(tune.Callback):
    """Hands the driver what trials report, through a queue."""

    def __init__(self, events: "queue.Queue[Event] | None" = None) -> None:
        self.events: queue.Queue[Event] = events or queue.Queue()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        report = {name: result[name] for name in (EPOCH, "digest", *MODES) if name in result}
        self.events.put(Event(trial.trial_id, dict(trial.config), report))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.events.put(Event(trial.trial_id, dict(trial.config), {"ended": True}))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.events.put(Event(trial.trial_id, dict(trial.config), {"ended": True}))

    def __reduce__(self) -> Any:  # Tune pickles callbacks with the experiment
        return (Events, ())


def distribution(values: Choice | Interval) -> Any:
    """A range of ours as one of Tune's."""
    if isinstance(values, Choice):
        return tune.choice(list(values.values))
    if values.whole:  # Tune leaves the upper end of whole numbers out
        draw = tune.lograndint if values.log else tune.randint
        return draw(int(values.low), int(values.high) + 1)
    return tune.loguniform(values.low, values.high) if values.log else tune.uniform(values.low, values.high)


def searcher(plan: Plan, first: list[dict[str, Any]]) -> ConcurrencyLimiter:
    """Optuna's TPE (Bergstra et al., 2011) or its random sampler, beginning with the recipe's own values."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search, seed = plan.experiment.search, plan.experiment.seed
    if search.algorithm == "random":
        sampler: Any = optuna.samplers.RandomSampler(seed=seed)
    else:  # the model of the space needs a few random samples to learn from, and few trials cannot pay for many
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(2, search.trials // 3)))
    optuna_search = OptunaSearch(
        space=OptunaSearch.convert_search_space({name: distribution(values) for name, values in plan.space.items()}),
        metric=search.metric,
        mode=MODES[search.metric],
        points_to_evaluate=first,
        sampler=sampler,
    )
    return ConcurrencyLimiter(optuna_search, max_concurrent=plan.at_once)


def scheduler(experiment: Experiment) -> TrialScheduler:
    """ASHA (Li et al., 2018), or none."""
    epochs = experiment.train.epochs
    if experiment.search.scheduler == "none" or epochs <= experiment.search.grace:
        return FIFOScheduler()
    metric = experiment.search.metric
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=metric,
        mode=MODES[metric],
        max_t=epochs,
        grace_period=experiment.search.grace,
        reduction_factor=3,
    )


def run_trials(work: Work, plan: Plan) -> Iterator[Event]:
    """Run the search to its end; yield what its trials report, as they report it.

    RunError if a trial trained another experiment than was sampled for it.
    """
    experiment, search, folder = plan.experiment, plan.experiment.search, work.run.folder.resolve()
    own = {name: experiment.get(name) for name in plan.space}
    first = [own] if all(value in plan.space[name] for name, value in own.items()) else []
    events: queue.Queue[Event] = queue.Queue()
    trainable = tune.with_parameters(
        TrialActor, experiment=experiment.as_dict(), dataset=work.dataset, folder=str(folder / "trials")
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, plan.reserved),
        tune_config=tune.TuneConfig(
            num_samples=search.trials,
            search_alg=searcher(plan, first),
            scheduler=scheduler(experiment),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder / "ray"),
            stop=Budget(60 * search.minutes if search.minutes else math.inf, lambda: work.interrupts.asked),
            callbacks=[Events(events)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the loop keeps its own
            verbose=0,
        ),
    )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # Tune's own signal handlers must not replace ours
        search_done = pool.submit(tuner.fit)
        while not (search_done.done() and events.empty()):
            try:
                event = events.get(timeout=0.3)
            except queue.Empty:
                continue
            wanted = experiment.override_all(event.sample).digest()
            if event.report.get("digest", wanted) != wanted:
                raise RunError(f"trial {event.trial} did not train what was sampled for it: {event.sample}")
            yield event
        search_done.result()
