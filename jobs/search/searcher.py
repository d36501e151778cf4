"""What a search tries next: first what is known to be good, then what Optuna's samplers draw.

Every sample is written into its trial's folder before the trial begins, so a resumed search knows them all.
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher

from classifier.config.experiment import Experiment
from classifier.search.pareto import MODES
from classifier.search.space import Choice, Interval, Space, grid, trimmed
from classifier.storage.atomic import write_atomically
from jobs.search.best_epochs import BestEpochs, rank
from jobs.search.trial_config import TrialConfig, unique

# A trial whose process dies is handed out again so often; it goes on from its last checkpoint.
DEATHS = 5
# A sampler that only draws what was tried before has come to the end of a small space.
PATIENCE = 50
# Combinations that are few enough to be looked through before each draw.
SMALL = 1000


@dataclass(frozen=True)
class Seen:
    """A trial of an earlier search: its settings, and how it did."""

    settings: dict[str, Any]
    scores: dict[str, float]


@dataclass
class Past:
    """What a search knows before it begins."""

    first: list[TrialConfig] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    tried: int = 0
    """Trials of this search that are not handed out again."""
    base: dict[str, Any] = field(default_factory=dict)
    space: Space | None = None
    """What an earlier process of this search drew around, and from which ranges."""


class Guide(Searcher):
    """Tune asks it for one trial after the other. It lets no more run than `at_once` says is placed at once.

    space_around: the ranges to draw from, given the changes of the best trial so far; asked once, when what is known to
    be good has been handed out.
    """

    def __init__(
        self,
        experiment: Experiment,
        space_around: Callable[[dict[str, Any]], Space],
        past: Past,
        *,
        trials: Path,
        at_once: Callable[[], int],
        best: BestEpochs,
    ) -> None:
        search = experiment.search
        super().__init__(metric=search.objective[0], mode=MODES[search.objective[0]])
        self.experiment, self.space_around, self.trials, self.at_once = experiment, space_around, trials, at_once
        self.best = best  # the callback adds to it what trials report
        self.objectives = search.objective
        # A grid is its combinations, however many; what was tried is tried.
        self.total = 0 if search.algorithm == "grid" else search.trials
        self.past, self.queue = past, list(past.first)
        self.known: dict[str, TrialConfig] = {}
        self.live: dict[str, TrialConfig] = {}
        self.base: dict[str, Any] = {}
        self.space: Space = {}
        self.study: optuna.Study | None = None
        self.asked: dict[str, optuna.trial.Trial] = {}  # what Optuna drew, by the trial's name
        self.heard: dict[str, int] = {}  # the last epoch that Optuna was told of
        self.deaths: Counter[str] = Counter()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The changes of the next trial; None while no more may run; FINISHED where nothing is left to try."""
        if len(self.live) >= self.at_once():
            return None
        sample = self.queue.pop(0) if self.queue else None
        if sample is None and self.past.tried + len(self.known) < self.total:
            sample = self._drawn()
        if sample is None:  # one that is running may die, and come back
            return None if self.live else Searcher.FINISHED
        if sample.name not in self.known:
            sample = TrialConfig(sample.changes, sample.source, sample.drawn, number=self.past.tried + len(self.known))
            sample.write(self.trials)
            self.known[sample.name] = sample
        self.live[trial_id] = sample
        return dict(sample.changes)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        name = self.live[trial_id].name
        if name in self.asked and len(self.objectives) == 1 and result["epoch"] > self.heard.get(name, 0):
            self.heard[name] = result["epoch"]
            self.asked[name].report(result[self.objectives[0]], result["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if result and "loss" in result and "error" not in result:  # Tune gives its last report to this method alone
            self.on_trial_result(trial_id, result)
        sample = self.live.pop(trial_id)
        name = sample.name
        if error:
            self.deaths[name] += 1
            if not self.has_given_up(name):
                self.queue.insert(0, sample)
                return
        scores = self.best.get(name)
        if self.study is None:
            return
        if name in self.asked:
            trial = self.asked.pop(name)
            if scores is None:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif len(self.objectives) == 1 and not (result or {}).get("whole", True):
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self.study.tell(trial, [scores[objective] for objective in self.objectives])
        elif scores is not None:
            self._remember(self.experiment.override_all(sample.changes), scores)

    def has_given_up(self, name: str) -> bool:
        """The trial died too often to be tried again."""
        return self.deaths[name] > DEATHS

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was tried and found lies in the trials' folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def __reduce__(self) -> Any:  # Tune pickles it with the experiment; a search is resumed from its own folder
        return (Searcher, ())

    def _drawn(self) -> TrialConfig | None:
        """A sample that was not tried yet; None where there seems to be none."""
        study = self.study or self._begun()
        if self._is_spent():
            return None
        distributions = {name: distribution(values) for name, values in self.space.items()}
        for _ in range(PATIENCE):
            trial = study.ask(distributions)
            sample = self._sample(trial.params)
            if sample.name not in self.known:
                self.asked[sample.name] = trial
                return sample
            scores = self.best.get(sample.name)
            if scores is None:  # it runs right now
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, [scores[name] for name in self.objectives])
        return None

    def _sample(self, drawn: dict[str, Any]) -> TrialConfig:
        return TrialConfig(trimmed(self.base | drawn, self.space, self.experiment), "drawn", drawn=drawn)

    def _is_spent(self) -> bool:
        """Whether every combination of a small space was tried: a sampler would draw long before it seemed so."""
        lists = [values.values for values in self.space.values() if isinstance(values, Choice)]
        if len(lists) < len(self.space) or math.prod(map(len, lists)) > SMALL:
            return False
        return all(self._sample(row).name in self.known for row in grid(self.space))

    def _begun(self) -> optuna.Study:
        """Draw around the best trial so far; what ended before counts where it lies in the space."""
        best = {name: report for name, report in self.best.reports.items() if name in self.known}
        names = sorted(best, key=lambda name: rank(self.experiment, best[name]))
        self.base, space = self.past.base, self.past.space
        if space is None:
            self.base = self.known[names[0]].changes if names else {}
            space = self.space_around(self.base)
            document = {"base": self.base, "space": {name: values.plain() for name, values in space.items()}}
            write_atomically(self.trials.parent / "space.json", json.dumps(document, indent=1) + "\n")
        self.space = space
        directions: list[Any] = ["maximize" if MODES[name] == "max" else "minimize" for name in self.objectives]
        self.study = optuna.create_study(sampler=sampler(self.experiment, len(self.known)), directions=directions)
        running = {sample.name for sample in self.live.values()}
        for name in names:
            if name not in running:
                self._remember(self.experiment.override_all(self.known[name].changes), best[name])
        for seen in self.past.seen:
            self._remember(self.experiment.override_all(seen.settings), seen.scores)
        return self.study

    def _remember(self, experiment: Experiment, scores: dict[str, float]) -> None:
        """Tell the study of a trial that it did not draw, where all that differs from the base lies in the space."""
        assert self.study is not None
        base = self.experiment.override_all(self.base)
        params = {name: experiment.get(name) for name in self.space}
        if experiment != base.override_all(params) or not all(params[name] in self.space[name] for name in params):
            return
        self.study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={name: distribution(values) for name, values in self.space.items()},
                values=[scores[name] for name in self.objectives],
            )
        )


def quiet_optuna() -> None:
    """Silence Optuna's line per trial, for the whole process; warnings still appear."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def first_samples(experiment: Experiment, space: Space, portfolio: list[dict[str, Any]]) -> list[TrialConfig]:
    """The recipe itself; then the portfolio's; with algorithm grid, all combinations of values."""
    samples = [TrialConfig({}, "recipe"), *(TrialConfig(changes, "portfolio") for changes in portfolio)]
    if experiment.search.algorithm == "grid":
        samples += [TrialConfig(trimmed(row, space, experiment), "grid", drawn=row) for row in grid(space)]
    if experiment.search.scheduler == "pbt":  # its members change what they train with, so that they need it all
        samples = [TrialConfig({name: experiment.get(name) for name in space}, "recipe")]
    return unique(samples)


def distribution(values: Choice | Interval) -> optuna.distributions.BaseDistribution:
    """A range of ours as one of Optuna's."""
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def sampler(experiment: Experiment, tried: int) -> optuna.samplers.BaseSampler:
    """The sampler that search.algorithm names, after so many trials.

    TPE: Bergstra et al., 2011; GP: Optuna's Gaussian process with expected improvement.
    """
    search = experiment.search
    # A resumed search must not draw the same again. The models learn from a few random trials first, and a small budget
    # cannot pay for many.
    seed, few = experiment.seed + 1009 * tried, min(10, max(2, search.trials // 3))
    if search.algorithm == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=few)
    if search.algorithm == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=few, multivariate=True)
    return optuna.samplers.RandomSampler(seed=seed)
