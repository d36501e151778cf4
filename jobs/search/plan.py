"""What a search will do, decided and checked before its first trial."""

import dataclasses
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier import models
from classifier.config.experiment import Experiment
from classifier.config.files import read_yaml
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, ConfigError, DataError
from classifier.profiling.step_time import StepTime, measure_prediction, measure_step_time
from classifier.runs.folder import FEATURES
from classifier.search import budget
from classifier.search.budget import ConclusionEstimate
from classifier.search.linear_probe import parsed, ranked
from classifier.search.portfolio import portfolio_for
from classifier.search.space import Choice, Interval, Space, conditions, grid, space_from
from classifier.training.resolve import resolve
from jobs.launch.cluster import (
    connect,
    largest_node_cores,
    max_concurrent_trials,
    refuse_unplaceable,
    trial_resources,
)
from jobs.launch.remote_call import MeasurementNode
from jobs.search import trial_budget
from jobs.search.schedulers import grace_of, scheduler
from jobs.steps.session import find_fastest_batch

# What the machine that runs a trial decides.
MACHINES = ("train.device", "train.precision")


@dataclass(frozen=True)
class SearchPlan:
    """The experiment that trials change, what they change, what runs at once, and how long the end will take.

    is_own: the user named the space. left_out: architectures that the default space is rid of. costs: by architecture,
    what is measured once of each (latency in ms, size in parameters).
    """

    experiment: Experiment
    space: Space
    is_own: bool
    at_once: int
    reserved: dict[str, float]
    portfolio: list[dict[str, Any]]
    costs: dict[str, dict[str, float]]
    end: ConclusionEstimate
    search_share: float = 1.0
    """Of the minutes, for trials of equal length; what is left is for a longer training of the best."""
    beside: float = 1.0
    """What an epoch takes with its validation, as a multiple of its steps alone."""
    notes: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    is_here: bool = True
    """Trials run on machines such as this one; else what they do is done where they run."""

    def trimmed(self, space: Space) -> Space:
        """A default space without the architectures that are left out."""
        return without_architectures(space, self.left_out)

    def lines(self) -> Iterator[str]:
        """What a person should know before it starts."""
        search = self.experiment.search
        trials = len(grid(self.space)) if search.algorithm == "grid" else search.trials
        summary = f"{trials} trials of {self.experiment.train.epochs} epochs at most, {self.at_once} at once"
        if search.minutes:
            summary += f", {search.minutes:g} min, of which about {self.end.total_seconds():.0f} s are kept for "
            summary += "the last training and the test" if search.final else "the test"
        if self.search_share < 1:
            summary += "; the second half trains the best of them for longer"
        yield f"search {summary}, by {search.algorithm} and {search.scheduler}, for {', '.join(search.objective)}:"
        yield from (f"  {name:<22} {values}" for name, values in self.space.items())
        if self.portfolio:
            yield f"first the recipe itself, then {len(self.portfolio)} settings that were good on other images"
        yield from (f"note: {note}" for note in self.notes)
        if len(search.objective) > 1 and self.costs:
            for name, costs in self.costs.items():
                yield f"  {name:<22} {costs['latency']:.2f} ms an image, {costs['size']:,.0f} parameters"


def make_plan(experiment: Experiment, dataset: Dataset, folder: Path, resumed: bool = False) -> SearchPlan:
    """Check a search before anything starts, choose its backbone and batch size, and fit its trials to its minutes.

    folder: of the search, where features are cached. resumed: an earlier process has made these choices, and
    `experiment` has them. ConfigError on a bad space, or on trials that the cluster has no room for; DataError without
    validation images.
    """
    search = experiment.search
    _check_inputs(experiment, dataset)
    start = experiment.override("train.epochs", search.epochs) if search.epochs and not resumed else experiment
    # A bad space is refused before anything starts, unless it depends on the backbone that a probe will choose.
    early_space = None if search.probe else _check_space(start, dataset)
    resources = connect(dashboard=start.workers.count > 1)
    refuse_unplaceable(start.workers, resources)
    node = MeasurementNode(start, dataset, resources)
    base, base_notes = (start, []) if resumed else _choose_base(start, node, folder / FEATURES)
    space = early_space if early_space and base == start else _check_space(base, dataset)
    is_own = bool(search.vary or search.space)
    portfolio = portfolio_for(base) if search.portfolio and not is_own else []

    whole, final_notes = trial_budget.choose_final(base, len(dataset.train), len(dataset.validation))
    step_time = node.call(measure_step_time, whole) if search.minutes else StepTime(0.0)
    fitted, fit_notes = whole, []
    if search.minutes and not resumed:
        cores = int(largest_node_cores())
        fitted, fit_notes = trial_budget.fit_trials(whole, dataset, step_time, resources=resources, node_cores=cores)
    too_slow = {} if is_own or not search.minutes else _find_too_slow(fitted, node, step_time, space, portfolio)

    planned = _with_grace(fitted, dataset)
    resolved = resolve(planned, dataset)
    slowdown = _trial_slowdown(planned, node)
    notes = [
        *(*base_notes, *final_notes, *fit_notes),
        *trial_budget.warn_of_few_images(len(dataset.validation), final=bool(resolved.search.final)),
        *conditions(space),
        *(f"{name} is left out: {why}" for name, why in too_slow.items()),
    ]
    return SearchPlan(
        experiment=planned,
        space=without_architectures(space, too_slow),
        is_own=is_own,
        at_once=max_concurrent_trials(planned.workers, resources),
        reserved=trial_resources(planned.workers, resources),
        portfolio=[entry for entry in portfolio if entry.get("model.name") not in too_slow],
        costs=_measure_costs(planned, node, space) if {"latency", "size"} & set(search.objective) else {},
        end=budget.estimate_conclusion(resolved, dataset, step_time, trial_slowdown=slowdown, is_local=node.is_local),
        search_share=trial_budget.search_share(resolved, dataset, step_time) if search.minutes else 1.0,
        beside=budget.epoch_overhead(resolved, dataset),
        notes=notes,
        left_out=tuple(too_slow),
        is_here=node.is_local,
    )


def _check_inputs(experiment: Experiment, dataset: Dataset) -> None:
    """DataError or ConfigError where there is nothing to choose by, or to start from."""
    start_from = experiment.search.start_from
    if len(dataset.validation) == 0:
        raise DataError(f"{dataset.name} has no validation images to choose by: set --data.validation above 0")
    if start_from and not (Path(start_from) / "trials.parquet").is_file():
        raise ConfigError(f"search.start_from {start_from}: this is no finished search (it has no trials.parquet)")


def _choose_base(experiment: Experiment, node: MeasurementNode, features: Path) -> tuple[Experiment, list[str]]:
    """The experiment with the best backbone of search.probe, and then the fastest batch size; and notes on both."""
    notes: list[str] = []
    if experiment.search.probe:
        experiment, notes = _choose_backbone(experiment, node, features)
    if not experiment.data.batch_auto:
        return experiment, notes
    settings, batch_notes = node.call(find_fastest_batch, experiment)
    return experiment.override_all(settings), [*notes, *batch_notes]


def _find_too_slow(
    experiment: Experiment,
    node: MeasurementNode,
    step_time: StepTime,
    space: Space,
    portfolio: list[dict[str, Any]],
) -> dict[str, str]:
    """Measure the architectures that trials may have, other than the recipe's own; those to leave out, with reasons."""
    names = space.get("model.name")
    if not isinstance(names, Choice):
        return {}
    conclusion = budget.estimate_conclusion(resolve(experiment, node.dataset), node.dataset, step_time)
    others = dict.fromkeys((*names.values, *(entry.get("model.name") for entry in portfolio)))
    seconds = {}
    for name in others:
        if name and name != experiment.model.name:
            tried = experiment.override("model.name", name)
            seconds[name] = budget.trial_seconds(tried, node.dataset, node.call(measure_step_time, tried, steps=2))
    return trial_budget.find_too_slow(seconds, 60 * (experiment.search.minutes or 0.0) - conclusion.total_seconds())


def _with_grace(experiment: Experiment, dataset: Dataset) -> Experiment:
    """The experiment with search.grace decided; population-based training decides by itself."""
    if experiment.search.scheduler == "pbt":
        return experiment
    steps = budget.optimizer_steps_per_epoch(experiment, len(dataset.train))
    return experiment.override("search.grace", grace_of(experiment, steps))


def without_architectures(space: Space, names: Collection[str]) -> Space:
    """The space without these values of model.name."""
    values = space.get("model.name")
    if not isinstance(values, Choice):
        return space
    return space | {"model.name": Choice(tuple(name for name in values.values if name not in names))}


def _trial_slowdown(experiment: Experiment, node: MeasurementNode) -> float:
    """How many trials share the cores that the last training has for itself."""
    if not node.is_local or "GPU" in node.resources or experiment.workers.count > 1:
        return 1.0
    return max(1.0, len(os.sched_getaffinity(0)) / (experiment.workers.cpus or 1.0))


def _check_space(experiment: Experiment, dataset: Dataset) -> Space:
    """What is searched. ConfigError for what is wrong in it, or what the scheduler or a model refuses."""
    search = experiment.search
    file = read_yaml(search.space) if search.space else {}
    space = space_from(search.vary, file, experiment, len(dataset.train))
    scheduler(experiment, space)
    if search.algorithm == "grid":
        grid(space)
    _refuse_what_no_trial_can_have(experiment, space, dataset)
    return space


def _choose_backbone(experiment: Experiment, node: MeasurementNode, kept: Path) -> tuple[Experiment, list[str]]:
    """The experiment with the backbone of search.probe that a linear probe ranks first; without portfolio the first."""
    if not experiment.search.portfolio:
        name, weights = parsed(experiment.search.probe)[0]
        return experiment.override_all({"model.name": name, "model.weights": weights}), []
    probes = node.call(ranked, experiment, kept.resolve())
    notes = [
        f"a linear probe of {one.name} makes {one.accuracy:.2%}, loss {one.loss:.3f}, in {one.seconds:.0f} s"
        for one in probes
    ]
    best = {"model.name": probes[0].name, "model.weights": probes[0].weights}
    return experiment.override_all(best), [*notes, f"the search goes on with {probes[0].name}"]


def _refuse_what_no_trial_can_have(experiment: Experiment, space: Space, dataset: Dataset) -> None:
    """ConfigError for a value that a model, or this data set, refuses."""
    # What depends on the machine is told by the trials: this one may run none.
    asked = experiment.override_all(dict.fromkeys(MACHINES, "auto"))
    for name, values in space.items():
        if name in MACHINES:
            continue
        ends = (values.low, values.high) if isinstance(values, Interval) else ()
        for value in values.values if isinstance(values, Choice) else ends:
            try:
                tried = asked.override(name, int(value) if isinstance(values, Interval) and values.whole else value)
                if not values.when:  # else it may fit under its conditions alone
                    resolve(tried, dataset)
                if name.startswith("model."):
                    shape = {"channels": dataset.channels, "size": dataset.size, "weights": False}
                    models.build(tried.model, classes=len(dataset.class_names), **shape)
            except ClassifierError as error:
                raise ConfigError(f"the search space of {name} holds {value!r}: {error}") from None


def _measure_costs(experiment: Experiment, node: MeasurementNode, space: Space) -> dict[str, dict[str, float]]:
    """Latency and size of each architecture, measured while nothing else runs."""
    names, own = space.get("model.name"), experiment.model.name
    every = names.values if isinstance(names, Choice) else (own,)
    return {
        name: node.call(measure_prediction, experiment.override("model.name", name), experiment.data.batch)
        for name in dict.fromkeys((own, *every))
    }


def single_trial_plan(plan: SearchPlan) -> SearchPlan:
    """The plan of one last trial, which has the machine to itself and is not stopped early."""
    resources = connect()
    experiment = plan.experiment.override_all(
        {"search.scheduler": "none", "search.trials": 1, "search.algorithm": "random"}
    )
    return dataclasses.replace(
        plan, experiment=experiment, at_once=1, reserved=trial_resources(experiment.workers, resources)
    )
