"""What a search will do, decided and checked before its first trial."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.profiling.step_time import StepTime, measure_prediction, measure_step_time
from classifier.runs.folder import FEATURES
from classifier.runtime.cpu import available_cores
from classifier.search import budget
from classifier.search.budget import ConclusionEstimate
from classifier.search.linear_probe import parse_backbones, rank_backbones
from classifier.search.portfolio import portfolio_for, trains_backbone
from classifier.search.space import (
    Choice,
    Space,
    describe_conditions,
    describe_values,
    expand_grid,
)
from classifier.training.resolve import resolve

from ..launch.cluster import (
    connect,
    largest_node_cores,
    max_concurrent_trials,
    refuse_unplaceable,
    trial_resources,
)
from ..launch.free_cores import share_free_cores
from ..launch.remote_call import MeasurementNode
from ..steps.session import find_fastest_batch
from . import trial_budget
from .schedulers import choose_grace
from .search_space import build_space, without_architectures
from .trial_config import list_changes


@dataclass(frozen=True)
class SearchPlan:
    """What a search varies, how many trials run at once, and how its minutes are spent."""

    experiment: Experiment
    """The experiment that trials change."""
    space: Space
    has_user_space: bool
    """Whether the user set the space."""
    max_concurrent: int
    trial_resources: dict[str, float]
    """What the actor of a trial reserves on the cluster."""
    portfolio: list[dict[str, Any]]
    costs: dict[str, dict[str, float]]
    """By architecture: latency in ms, and size in parameters."""
    conclusion: ConclusionEstimate
    search_share: float = 1.0
    """The share of the minutes for trials of equal length; the rest is for a longer training of the best settings."""
    epoch_overhead: float = 1.0
    """Time of an epoch with validation and checkpoint, as a multiple of its steps alone."""
    notes: list[str] = field(default_factory=list)
    excluded_architectures: tuple[str, ...] = ()
    """Too slow for the minutes."""
    min_trials: int | None = None
    """How many trials the minutes hold if none is stopped early; None without minutes."""
    is_local: bool = True
    """Whether this machine can run a trial; if not, measurements and the refit run on one that can."""

    def exclude_architectures(self, space: Space) -> Space:
        """A default space without the excluded architectures."""
        return without_architectures(space, self.excluded_architectures)

    @property
    def trial_count(self) -> int:
        """How many trials there are, if the minutes hold them."""
        search = self.experiment.search
        return len(expand_grid(self.space)) if search.algorithm == "grid" else search.trials

    @property
    def is_single(self) -> bool:
        """Whether it trains once: then the training is shortened if it turns out not to fit into the minutes."""
        return self.trial_count == 1

    def shorten(self, epochs: int) -> "SearchPlan":
        """The same plan with trials of fewer epochs."""
        return dataclasses.replace(self, experiment=self.experiment.override("train.epochs", epochs))

    def describe(self) -> Iterator[str]:
        """Lines to print before the search starts."""
        search = self.experiment.search
        trials = "1 trial" if self.is_single else f"{self.trial_count} trials"
        if self.min_trials is not None and self.min_trials < self.trial_count:
            trials = f"{self.min_trials} to {self.trial_count} trials, as the minutes allow,"
        summary = f"{trials} of at most {self.experiment.train.epochs} epochs, {self.max_concurrent} at once"
        if search.minutes:
            purpose = "the refit and the test" if search.final else "the test"
            summary += f", {search.minutes:g} min, about {self.conclusion.total_seconds():.0f} s of it for {purpose}"
        if self.search_share < 1:
            summary += "; the second half trains the best settings for longer"
        yield f"search: {summary}, with {search.algorithm} and {search.scheduler}, for {', '.join(search.objective)}"
        if not self.is_single:
            yield from describe_values(self.space)
        if self.portfolio:
            probes = sum(not self.experiment.override_all(entry).takes_steps for entry in self.portfolio)
            first = "a linear probe and the recipe itself" if probes else "the recipe itself"
            yield f"first {first}, then {len(self.portfolio) - probes} settings that did well on other data sets"
        yield from (f"note: {note}" for note in self.notes)
        if len(search.objective) > 1 and self.costs:
            for name, costs in self.costs.items():
                yield f"  {name:<22} {costs['latency']:.2f} ms per image, {costs['size']:,.0f} parameters"


def make_plan(
    experiment: Experiment,
    dataset: Dataset,
    folder: Path,
    *,
    resumed: bool,
    begin_phase: Callable[[str], None],
    spent_seconds: Callable[[], float] = lambda: 0.0,
) -> SearchPlan:
    """Check a search before anything starts, choose its backbone and batch size, and fit its trials to its minutes.

    folder: of the search, where features are cached. resumed: an earlier process has made these choices, and
    `experiment` has them. begin_phase: told what is done from now on. spent_seconds: of the minutes, until now.
    ConfigError on a bad space, or on trials that the cluster has no room for; DataError without validation images.
    """
    experiment = _with_objective(experiment, dataset)
    search = experiment.search
    _check_inputs(experiment, dataset)
    start = experiment.override("train.epochs", search.epochs) if search.epochs and not resumed else experiment
    # A bad space is refused before anything starts, unless it depends on the backbone that a probe will choose.
    early_space = None if search.probe else build_space(start, dataset)
    begin_phase("starting Ray")
    resources = connect(dashboard=start.workers.count > 1)
    refuse_unplaceable(start.workers, resources)
    node = MeasurementNode(start, dataset, resources)
    base, base_notes = (start, []) if resumed else _choose_base(start, node, folder / FEATURES, begin_phase)
    space = early_space if early_space and base == start else build_space(base, dataset)
    is_own = bool(search.vary or search.space)
    # The recipe itself is the first trial.
    portfolio = portfolio_for(base)[: search.trials - 1] if search.portfolio and not is_own else []

    begin_phase(f"measuring the speed of {base.model.name}" if search.minutes else "planning")
    whole, final_notes = trial_budget.choose_final(base, len(dataset.train), len(dataset.validation))
    step_time = node.call(measure_step_time, whole) if search.minutes else StepTime(0.0)
    fitted, fit_notes = whole, []
    if search.minutes and not resumed:
        cores = int(largest_node_cores())
        if single := trial_budget.fit_single_trial(
            base,
            dataset,
            step_time,
            spent_seconds=spent_seconds(),
            node_cores=cores,
            probe=next((entry for entry in portfolio if not base.override_all(entry).takes_steps), None),
        ):
            fitted, fit_notes = single
            portfolio, final_notes = [], []
        else:
            fitted, fit_notes = trial_budget.fit_trials(
                whole, dataset, step_time, resources=resources, node_cores=cores
            )
    too_slow, portfolio_notes = {}, []
    if not is_own and search.minutes and fitted.search.trials > 1:
        too_slow = _find_too_slow(fitted, node, step_time, space, portfolio, begin_phase)
        portfolio = [entry for entry in portfolio if entry.get("model.name") not in too_slow]
        portfolio, portfolio_notes = _keep_fast_entries(fitted, node, step_time, portfolio, begin_phase)

    planned = _with_grace(fitted if resumed else share_free_cores(fitted), dataset)
    resolved = resolve(planned, dataset)
    slowdown = _trial_slowdown(planned, node)
    notes = [
        *(*base_notes, *final_notes, *fit_notes),
        *trial_budget.warn_of_few_images(len(dataset.validation), final=bool(resolved.search.final)),
        *describe_conditions(space),
        *(f"{name} is left out: {reason}" for name, reason in too_slow.items()),
        *portfolio_notes,
    ]
    conclusion = budget.estimate_conclusion(
        resolved, dataset, step_time, trial_slowdown=slowdown, is_local=node.is_local
    )
    search_share = trial_budget.choose_search_share(resolved, dataset, step_time) if search.minutes else 1.0
    min_trials = None
    if search.minutes and not resumed:
        seconds = search_share * (60 * search.minutes - conclusion.total_seconds()) - spent_seconds()
        min_trials = trial_budget.count_trials(resolved, dataset, step_time, seconds)
    return SearchPlan(
        experiment=planned,
        space=without_architectures(space, too_slow),
        has_user_space=is_own,
        max_concurrent=max_concurrent_trials(planned.workers, resources),
        trial_resources=trial_resources(planned.workers, resources),
        portfolio=portfolio,
        costs=_measure_costs(planned, node, space, begin_phase) if {"latency", "size"} & set(search.objective) else {},
        conclusion=conclusion,
        search_share=search_share,
        min_trials=min_trials,
        epoch_overhead=budget.epoch_overhead(resolved, dataset),
        notes=notes,
        excluded_architectures=tuple(too_slow),
        is_local=node.is_local,
    )


def _check_inputs(experiment: Experiment, dataset: Dataset) -> None:
    """DataError without validation images, ConfigError without the search to start from."""
    start_from = experiment.search.start_from
    if len(dataset.validation) == 0:
        how = dataset.how_to_fill("validation")
        raise DataError(f"{dataset.name} has no validation images to compare trials by: {how}")
    if start_from and not (Path(start_from) / "trials.parquet").is_file():
        raise ConfigError(f"search.start_from {start_from} is not a finished search: it has no trials.parquet")


def _with_objective(experiment: Experiment, dataset: Dataset) -> Experiment:
    """Name the accuracy of several labels, which is that of all labels of an image, by what ranks their trials."""
    objective = experiment.search.objective
    if dataset.task == "multilabel":
        return experiment.override("search.objective", tuple("map" if one == "accuracy" else one for one in objective))
    if "map" in objective:
        raise ConfigError("search.objective map is a score of several labels: give accuracy, macro_f1 or loss")
    if "quadratic_kappa" in objective and dataset.task != "ordinal":
        raise ConfigError("search.objective quadratic_kappa is a score of grades: give accuracy, macro_f1 or loss")
    return experiment


def _choose_base(
    experiment: Experiment, node: MeasurementNode, features: Path, begin_phase: Callable[[str], None]
) -> tuple[Experiment, list[str]]:
    """Set the best backbone of search.probe and the fastest batch size, if requested; and notes on both."""
    notes: list[str] = []
    if experiment.search.probe:
        begin_phase("comparing backbones")
        experiment, notes = _choose_backbone(experiment, node, features)
    if not experiment.data.batch_auto:
        return experiment, notes
    begin_phase("measuring batch sizes")
    settings, batch_notes = node.call(find_fastest_batch, experiment)
    return experiment.override_all(settings), [*notes, *batch_notes]


def _find_too_slow(
    experiment: Experiment,
    node: MeasurementNode,
    step_time: StepTime,
    space: Space,
    portfolio: list[dict[str, Any]],
    begin_phase: Callable[[str], None],
) -> dict[str, str]:
    """Measure the architectures of the space and the portfolio; return those to leave out, with the reason."""
    names = space.get("model.name")
    if not isinstance(names, Choice):
        return {}
    others = dict.fromkeys((*names.values, *(entry.get("model.name") for entry in portfolio)))
    seconds = {}
    for name in others:
        if name and name != experiment.model.name:
            begin_phase(f"measuring the speed of {name}")
            tried = experiment.override("model.name", name)
            seconds[name] = budget.trial_seconds(tried, node.dataset, node.call(measure_step_time, tried, steps=2))
    return trial_budget.find_too_slow(seconds, _trial_seconds(experiment, node, step_time))


def _keep_fast_entries(
    experiment: Experiment,
    node: MeasurementNode,
    step_time: StepTime,
    portfolio: list[dict[str, Any]],
    begin_phase: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Leave out entries of the portfolio that train a backbone for too long, where the recipe keeps it frozen."""
    tried = {list_changes(entry): experiment.override_all(entry) for entry in portfolio}
    tried = {words: one for words, one in tried.items() if trains_backbone(one)}
    if trains_backbone(experiment) or not tried:
        return portfolio, []
    begin_phase("measuring the speed of the whole network")
    whole = next(iter(tried.values())).override("model.probe", False)  # its first epoch takes no steps
    measured = node.call(measure_step_time, whole, steps=2)
    seconds = {words: budget.trial_seconds(one, node.dataset, measured) for words, one in tried.items()}
    too_slow = trial_budget.find_too_slow(seconds, _trial_seconds(experiment, node, step_time))
    notes = [f"{words!r} is left out: {reason}" for words, reason in too_slow.items()]
    return [entry for entry in portfolio if list_changes(entry) not in too_slow], notes


def _trial_seconds(experiment: Experiment, node: MeasurementNode, step_time: StepTime) -> float:
    """The seconds of search.minutes that all trials have."""
    conclusion = budget.estimate_conclusion(resolve(experiment, node.dataset), node.dataset, step_time)
    return 60 * (experiment.search.minutes or 0.0) - conclusion.total_seconds()


def _with_grace(experiment: Experiment, dataset: Dataset) -> Experiment:
    """Set search.grace, except for population-based training, which decides by itself."""
    if experiment.search.scheduler == "pbt":
        return experiment
    steps = budget.optimizer_steps_per_epoch(experiment, dataset)
    return experiment.override("search.grace", choose_grace(experiment, steps))


def _trial_slowdown(experiment: Experiment, node: MeasurementNode) -> float:
    """How many trials share the cores that the refit has to itself."""
    if not node.is_local or "GPU" in node.resources or experiment.workers.count > 1:
        return 1.0
    return max(1.0, available_cores() / (experiment.workers.cpus or 1.0))


def _choose_backbone(experiment: Experiment, node: MeasurementNode, features: Path) -> tuple[Experiment, list[str]]:
    """Set the backbone of search.probe that a linear probe ranks first, or without search.portfolio the first one."""
    if not experiment.search.portfolio:
        name, weights = parse_backbones(experiment.search.probe)[0]
        return experiment.override_all({"model.name": name, "model.weights": weights}), []
    probes = node.call(rank_backbones, experiment, features.resolve())
    notes = [
        f"linear probe of {one.name}: {one.accuracy:.2%}, loss {one.loss:.3f}, in {one.seconds:.0f} s" for one in probes
    ]
    best = {"model.name": probes[0].name, "model.weights": probes[0].weights}
    return experiment.override_all(best), [*notes, f"the search uses {probes[0].name}"]


def _measure_costs(
    experiment: Experiment, node: MeasurementNode, space: Space, begin_phase: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Measure latency and size of each architecture, before any trial runs."""
    begin_phase("measuring latencies")
    names, own = space.get("model.name"), experiment.model.name
    every = names.values if isinstance(names, Choice) else (own,)
    return {
        name: node.call(measure_prediction, experiment.override("model.name", name), experiment.data.batch)
        for name in dict.fromkeys((own, *every))
    }


def single_trial_plan(plan: SearchPlan) -> SearchPlan:
    """The plan for one last trial, which has the machine to itself and is not stopped early."""
    resources = connect()
    experiment = plan.experiment.override_all(
        {"search.scheduler": "none", "search.trials": 1, "search.algorithm": "random"}
    )
    return dataclasses.replace(
        plan, experiment=experiment, max_concurrent=1, trial_resources=trial_resources(experiment.workers, resources)
    )
