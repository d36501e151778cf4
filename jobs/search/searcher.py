"""Choose the next trial: first configurations known to be good, then draws from Optuna's samplers.

Each configuration is written to its trial's folder before the trial starts, so a resumed search knows them all.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import ray.tune.search

from classifier.config.experiment import Experiment
from classifier.search.pareto import MODES
from classifier.search.space import Choice, Interval, Space, effective_changes, expand_grid
from classifier.storage.atomic import write_atomically

from .best_epochs import BestEpochs, rank
from .trial_config import TrialConfig, remove_duplicates

# How often a trial whose process crashed is restarted, from its last checkpoint.
MAX_RESTARTS = 5
# After this many draws of trials that have been started before, the space counts as exhausted.
MAX_REPEATED_DRAWS = 50
# A space with at most this many combinations is searched for an untried one before each draw.
MAX_ENUMERATED = 1000


@dataclass(frozen=True)
class Observation:
    """The settings and scores of a trial of an earlier search, or of one that is over."""

    settings: dict[str, Any]
    scores: dict[str, float]


@dataclass
class SearchHistory:
    """What a search knows before its first trial."""

    pending: list[TrialConfig] = field(default_factory=list)
    """The trials to start, or to resume, first."""
    observations: list[Observation] = field(default_factory=list)
    """What the sampler learns from besides this search's own trials."""
    done_count: int = 0
    """Trials of this search that are over, and not in `pending`."""
    base_changes: dict[str, Any] = field(default_factory=dict)
    """The changes that an earlier process of this search drew around."""
    space: Space | None = None
    """The ranges that it drew from; None if it drew nothing yet."""


class Searcher(ray.tune.search.Searcher):
    """Suggests one trial after the other to Tune, with at most `max_concurrent()` running.

    make_space: returns the ranges to draw from, given the changes of the best trial so far; called once, when all
    pending trials have been started. best_epochs: updated by Tune's callback.
    """

    def __init__(
        self,
        experiment: Experiment,
        make_space: Callable[[dict[str, Any]], Space],
        history: SearchHistory,
        *,
        trials: Path,
        max_concurrent: Callable[[], int],
        best_epochs: BestEpochs,
    ) -> None:
        search = experiment.search
        super().__init__(metric=search.objective[0], mode=MODES[search.objective[0]])
        self.experiment, self.trials, self.best_epochs = experiment, trials, best_epochs
        self.make_space, self.max_concurrent = make_space, max_concurrent
        self.objectives = search.objective
        # A grid has as many trials as combinations, all of them pending.
        self.max_trials = 0 if search.algorithm == "grid" else search.trials
        self.history, self.queue = history, list(history.pending)
        self.started: dict[str, TrialConfig] = {}
        self.running: dict[str, TrialConfig] = {}
        self.base_changes: dict[str, Any] = {}
        self.space: Space = {}
        self.study: optuna.Study | None = None
        self.optuna_trials: dict[str, optuna.trial.Trial] = {}  # of the trials that Optuna drew, by name
        self.last_epochs: dict[str, int] = {}  # the last epoch reported to Optuna
        self.crashes: Counter[str] = Counter()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The changes of the next trial; None while no more may run; FINISHED if nothing is left to try."""
        if len(self.running) >= self.max_concurrent():
            return None
        config = self.queue.pop(0) if self.queue else None
        if config is None and self.history.done_count + len(self.started) < self.max_trials:
            config = self._draw()
        if config is None:  # a running trial may crash, and be queued again
            return None if self.running else self.FINISHED
        if config.name not in self.started:
            config = dataclasses.replace(config, number=self.history.done_count + len(self.started))
            config.write(self.trials)
            self.started[config.name] = config
        self.running[trial_id] = config
        return dict(config.changes)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        name = self.running[trial_id].name
        if name in self.optuna_trials and len(self.objectives) == 1 and result["epoch"] > self.last_epochs.get(name, 0):
            self.last_epochs[name] = result["epoch"]
            self.optuna_trials[name].report(result[self.objectives[0]], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result and "loss" in result and "error" not in result:  # Tune passes the last report to this method only
            self.on_trial_result(trial_id, result)
        config = self.running.pop(trial_id)
        name = config.name
        if error:
            self.crashes[name] += 1
            if not self.has_given_up(name):
                self.queue.insert(0, config)
                return
        scores = self.best_epochs.get(name)
        if self.study is None:
            return
        if name in self.optuna_trials:
            trial = self.optuna_trials.pop(name)
            if scores is None:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif len(self.objectives) == 1 and not (result or {}).get("whole", True):
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self.study.tell(trial, [scores[objective] for objective in self.objectives])
        elif scores is not None:
            self._add_to_study(self.experiment.override_all(config.changes), scores)

    def has_given_up(self, name: str) -> bool:
        """Whether the trial crashed too often to be restarted."""
        return self.crashes[name] > MAX_RESTARTS

    def save(self, checkpoint_path: str) -> None:
        """Nothing: configurations and results are in the trials' folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, like `save`."""

    def __reduce__(self) -> Any:  # Tune pickles it with the experiment; a search resumes from its own folder
        return (ray.tune.search.Searcher, ())

    def _draw(self) -> TrialConfig | None:
        """Draw a configuration that was not tried yet; None if there seems to be none."""
        study = self.study or self._create_study()
        if self._is_exhausted():
            return None
        distributions = {name: to_optuna_distribution(values) for name, values in self.space.items()}
        for _ in range(MAX_REPEATED_DRAWS):
            trial = study.ask(distributions)
            config = self._make_config(trial.params)
            if config.name not in self.started:
                self.optuna_trials[config.name] = trial
                return config
            scores = self.best_epochs.get(config.name)
            if scores is None:  # it is still running
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, [scores[name] for name in self.objectives])
        return None

    def _make_config(self, drawn: dict[str, Any]) -> TrialConfig:
        return TrialConfig(
            effective_changes(self.base_changes | drawn, self.space, self.experiment), "drawn", drawn=drawn
        )

    def _is_exhausted(self) -> bool:
        """Whether every combination of a small space was tried, which random draws would take long to show."""
        lists = [values.values for values in self.space.values() if isinstance(values, Choice)]
        if len(lists) < len(self.space) or math.prod(map(len, lists)) > MAX_ENUMERATED:
            return False
        return all(self._make_config(row).name in self.started for row in expand_grid(self.space))

    def _create_study(self) -> optuna.Study:
        """Create the study that draws around the best trial so far, and add earlier trials that lie in its space.

        A linear probe has nothing to vary.
        """
        best = {name: report for name, report in self.best_epochs.reports.items() if name in self.started}
        names = sorted(best, key=lambda name: rank(self.experiment, best[name]))
        varied = [name for name in names if self.experiment.override_all(self.started[name].changes).takes_steps]
        self.base_changes, space = self.history.base_changes, self.history.space
        if space is None:
            self.base_changes = self.started[varied[0]].changes if varied else {}
            space = self.make_space(self.base_changes)
            document = {"base": self.base_changes, "space": {name: values.to_plain() for name, values in space.items()}}
            write_atomically(self.trials.parent / "space.json", json.dumps(document, indent=1) + "\n")
        self.space = space
        directions: list[Any] = ["maximize" if MODES[name] == "max" else "minimize" for name in self.objectives]
        self.study = optuna.create_study(
            sampler=make_sampler(self.experiment, len(self.started)), directions=directions
        )
        running = {config.name for config in self.running.values()}
        for name in names:
            if name not in running:
                self._add_to_study(self.experiment.override_all(self.started[name].changes), best[name])
        for observation in self.history.observations:
            self._add_to_study(self.experiment.override_all(observation.settings), observation.scores)
        return self.study

    def _add_to_study(self, experiment: Experiment, scores: dict[str, float]) -> None:
        """Add a trial that the study did not draw, if it differs from the base only by values in the space."""
        assert self.study is not None
        base = self.experiment.override_all(self.base_changes)
        params = {name: experiment.get(name) for name in self.space}
        if experiment != base.override_all(params) or not all(params[name] in self.space[name] for name in params):
            return
        self.study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: to_optuna_distribution(values) for name, values in self.space.items()},
                values=[scores[name] for name in self.objectives],
            )
        )


def quiet_optuna() -> None:
    """Silence Optuna's line per trial, for the whole process; warnings still appear."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def initial_configs(experiment: Experiment, space: Space, portfolio: list[dict[str, Any]]) -> list[TrialConfig]:
    """The recipe itself, then the portfolio; with search.algorithm grid, then all combinations of values.

    A linear probe comes first: it takes seconds, and is what a training makes without flags.
    """
    configs = [TrialConfig({}, "recipe"), *(TrialConfig(changes, "portfolio") for changes in portfolio)]
    configs.sort(key=lambda config: experiment.override_all(config.changes).takes_steps)
    if experiment.search.algorithm == "grid":
        configs += [
            TrialConfig(effective_changes(row, space, experiment), "grid", drawn=row) for row in expand_grid(space)
        ]
    if experiment.search.scheduler == "pbt":  # members change every searched setting as they train
        configs = [TrialConfig({name: experiment.get(name) for name in space}, "recipe")]
    return remove_duplicates(configs)


def to_optuna_distribution(values: Choice | Interval) -> optuna.distributions.BaseDistribution:
    """Convert a range to Optuna's type."""
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    if values.is_integer:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def make_sampler(experiment: Experiment, tried: int) -> optuna.samplers.BaseSampler:
    """Create the sampler that search.algorithm names. tried: the number of trials started so far.

    TPE: Bergstra et al., 2011; GP: Optuna's Gaussian process with expected improvement.
    """
    search = experiment.search
    # `tried` is in the seed so that a resumed search does not repeat draws. The models need a few random trials first;
    # a small budget cannot pay for many.
    seed, startup_trials = experiment.seed + 1009 * tried, min(10, max(2, search.trials // 3))
    if search.algorithm == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup_trials)
    if search.algorithm == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials, multivariate=True)
    return optuna.samplers.RandomSampler(seed=seed)
