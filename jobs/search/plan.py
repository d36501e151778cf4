"""What a search will do, decided and checked before its first trial."""

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier import models
from classifier.config.experiment import Experiment
from classifier.config.files import read_yaml
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, ConfigError, DataError
from classifier.profiling import step_time
from classifier.profiling.step_time import StepTime
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
from jobs.search.schedulers import grace_of, scheduler
from jobs.steps.session import find_fastest_batch

# A trial that would take more than this share of the minutes cannot be told from a bad one in time.
SHARE_OF_BUDGET = 0.5
# So many trials after one another must fit into the minutes before two run at once: each has its answer sooner alone.
ROUNDS = 6
# Fewer validation images than this hardly choose between trials.
FEW = 100
# A winner learns from its validation images too where they are more than this share of all it can learn from.
WORTH = 1 / 7
# With so many in the minutes, half of them goes to a longer training of the best.
ROUNDS_FOR_LONGER, HALF = 4, 0.5
# So many trials the minutes should hold before the last training, which alone has all epochs; and the share of them
# that a trial needs to tell what it is worth.
ROUNDS_FOR_LAST, LEAST = 4, 0.25
# What the machine that runs a trial decides.
MACHINES = ("train.device", "train.precision")


@dataclass(frozen=True)
class Plan:
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
        names = space.get("model.name")
        if isinstance(names, Choice):
            kept = tuple(name for name in names.values if name not in self.left_out)
            space = space | {"model.name": Choice(kept)}
        return space

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


def make_plan(experiment: Experiment, dataset: Dataset, folder: Path, resumed: bool = False) -> Plan:
    """Check a search before anything starts, choose its backbone, and cut its trials to its budget.

    folder: the search's, where features are kept. resumed: all of that was decided before. ConfigError on a bad space,
    or on trials that the cluster cannot hold.
    """
    search, notes = experiment.search, []
    if len(dataset.validation) == 0:
        raise DataError(f"{dataset.name} has no validation images to choose by: set --data.validation above 0")
    if search.start_from and not (Path(search.start_from) / "trials.parquet").is_file():
        raise ConfigError(
            f"search.start_from {search.start_from}: this is no finished search (it has no trials.parquet)"
        )
    if search.epochs and not resumed:
        experiment = experiment.override("train.epochs", search.epochs)
    # Before anything starts; a probe decides later what the space is.
    asked, space = experiment, {} if search.probe else _checked_space(experiment, dataset)
    resources = connect(dashboard=experiment.workers.count > 1)
    refuse_unplaceable(experiment.workers, resources)
    place = MeasurementNode(experiment, dataset, resources)
    if search.probe and not resumed:
        experiment, notes = _with_best_backbone(experiment, place, folder / FEATURES)
    if experiment.data.batch_auto and not resumed:
        found, lines = place.call(find_fastest_batch, experiment)
        experiment, notes = experiment.override_all(found), [*notes, *lines]
    if search.probe or experiment != asked:
        space = _checked_space(experiment, dataset)
    is_own = bool(search.vary or search.space)
    if search.final is None:
        experiment, why = _with_final(experiment, dataset)
        notes = [*notes, *why]
    portfolio = [] if is_own or not search.portfolio else portfolio_for(experiment)
    left_out: dict[str, str] = {}
    pace, share = StepTime(0.0), 1.0
    if search.minutes:
        pace = place.call(step_time.measure_step_time, experiment)
        if not resumed:
            experiment, cuts = _cut(experiment, dataset, pace, resources)
            notes += cuts
        share = _search_share(resolve(experiment, dataset), dataset, pace)
        if not is_own and isinstance(names := space.get("model.name"), Choice):
            listed = dict.fromkeys((*names.values, *(entry.get("model.name") for entry in portfolio)))
            end = budget.estimate_conclusion(resolve(experiment, dataset), dataset, pace)
            left_out = _too_slow(
                experiment, place, [name for name in listed if name], 60 * search.minutes - end.total_seconds()
            )
    if search.scheduler != "pbt":
        grace = grace_of(experiment, budget.optimizer_steps_per_epoch(experiment, len(dataset.train)))
        experiment = experiment.override("search.grace", grace)
    resolved = resolve(experiment, dataset)
    drafted = Plan(
        experiment=experiment,
        space=space,
        is_own=is_own,
        at_once=max_concurrent_trials(experiment.workers, resources),
        reserved=trial_resources(experiment.workers, resources),
        portfolio=[entry for entry in portfolio if entry.get("model.name") not in left_out],
        costs=_costs(experiment, place, space) if {"latency", "size"} & set(search.objective) else {},
        end=budget.estimate_conclusion(
            resolved, dataset, pace, trial_slowdown=_crowd(experiment, place), is_local=place.is_local
        ),
        search_share=share,
        beside=budget.epoch_overhead(resolved, dataset),
        notes=[
            *notes,
            *_few_to_choose_by(len(dataset.validation), told=bool(resolved.search.final)),
            *conditions(space),
            *(f"{name} is left out: {why}" for name, why in left_out.items()),
        ],
        left_out=tuple(left_out),
        is_here=place.is_local,
    )
    return dataclasses.replace(drafted, space=drafted.trimmed(space))


def _with_final(experiment: Experiment, dataset: Dataset) -> tuple[Experiment, list[str]]:
    """search.final, where the user left it open: on where much would be left unlearnt. And a word for it."""
    train, held = len(dataset.train), len(dataset.validation)
    may = experiment.search.scheduler != "pbt" and experiment.workers.count == 1
    worth = may and held > WORTH * (train + held)
    words = f"the winner is trained once more, on its {held} validation images too; --search.final false leaves it out"
    return experiment.override("search.final", worth), [words] if worth else []


def _few_to_choose_by(count: int, *, told: bool) -> list[str]:
    """A word of caution where the standard error of an accuracy is more than five points."""
    if count >= FEW:
        return []
    mend = "" if told else ", and --search.final true trains the winner on all"
    return [
        f"{count} validation images tell accuracies apart to {50 / math.sqrt(count):.0f} points: a larger "
        f"--data.validation chooses better{mend}"
    ]


def _search_share(resolved: Experiment, dataset: Dataset, pace: StepTime) -> float:
    """Half of the minutes, where they hold several trials and a longer training may follow; else all of them."""
    search = resolved.search
    may = search.longer and search.scheduler != "pbt" and search.algorithm != "grid"
    # Where the last training alone has all epochs, it is the longer one.
    may = may and "epochs" not in search.objective and not (search.final and search.final_epochs)
    rounds = 60 * (search.minutes or 0.0) / budget.trial_seconds(resolved, dataset, pace)
    return HALF if may and rounds >= ROUNDS_FOR_LONGER else 1.0


def _crowd(experiment: Experiment, place: MeasurementNode) -> float:
    """How many trials share the cores that the last training has for itself."""
    if not place.is_local or "GPU" in place.resources or experiment.workers.count > 1:
        return 1.0
    return max(1.0, len(os.sched_getaffinity(0)) / (experiment.workers.cpus or 1.0))


def _checked_space(experiment: Experiment, dataset: Dataset) -> Space:
    """What is searched. ConfigError for what is wrong in it, or what the scheduler or a model refuses."""
    search = experiment.search
    file = read_yaml(search.space) if search.space else {}
    space = space_from(search.vary, file, experiment, len(dataset.train))
    scheduler(experiment, space)
    if search.algorithm == "grid":
        grid(space)
    _refuse_what_no_trial_can_have(experiment, space, dataset)
    return space


def _with_best_backbone(experiment: Experiment, place: MeasurementNode, kept: Path) -> tuple[Experiment, list[str]]:
    """The experiment with the backbone of search.probe that a linear probe ranks first; without portfolio the first."""
    if not experiment.search.portfolio:
        name, weights = parsed(experiment.search.probe)[0]
        return experiment.override_all({"model.name": name, "model.weights": weights}), []
    probes = place.call(ranked, experiment, kept.resolve())
    notes = [
        f"a linear probe of {one.name} makes {one.accuracy:.2%}, loss {one.loss:.3f}, in {one.seconds:.0f} s"
        for one in probes
    ]
    best = {"model.name": probes[0].name, "model.weights": probes[0].weights}
    return experiment.override_all(best), [*notes, f"the search goes on with {probes[0].name}"]


def _cut(
    experiment: Experiment, dataset: Dataset, pace: StepTime, resources: dict[str, float]
) -> tuple[Experiment, list[str]]:
    """Fit the trials to the minutes: fewer at once, each with more cores, where few would end; then fewer epochs.

    What will be trained once more at last need not be trained as long to be compared.
    """
    seconds, notes = 60 * (experiment.search.minutes or math.inf), []
    alone = budget.trial_seconds(experiment, dataset, pace)
    at_once = 1
    if not resources.get("GPU", 0) and experiment.workers.count == 1 and experiment.workers.cpus is None:
        cores = resources["CPU"]
        at_once = int(min(cores, max(1, seconds / (ROUNDS * alone))))
        cpus = max(1, min(int(cores / at_once), int(largest_node_cores())))
        experiment = experiment.override("workers.cpus", float(cpus))
        alone *= at_once  # they share the cores
    epochs = experiment.train.epochs
    fitting = int(epochs * SHARE_OF_BUDGET * seconds / alone)
    if experiment.search.final and not experiment.search.epochs and experiment.search.scheduler != "pbt":
        last = experiment.search.final_epochs or epochs
        held = seconds - budget.estimate_conclusion(resolve(experiment, dataset), dataset, pace).total_seconds()
        several = int(max(LEAST * epochs, epochs * held / (ROUNDS_FOR_LAST * alone)))
        fewer = max(1, min(several, fitting))
        if fewer < epochs:
            notes.append(f"the last training has {last} epochs, trials have {fewer}, so that the minutes hold several")
            return experiment.override_all({"train.epochs": fewer, "search.final_epochs": last}), notes
    fewer = max(1, fitting)
    if fewer < epochs:
        experiment = experiment.override("train.epochs", fewer)
        notes.append(f"{epochs} epochs would take {alone / 60:.1f} minutes: trials have {fewer}")
    return experiment, notes


def _too_slow(experiment: Experiment, place: MeasurementNode, names: list[str], held: float) -> dict[str, str]:
    """Architectures of which one trial would take most of the seconds that are held for trials, with the reason.

    The recipe's own is never among them.
    """
    found, most = {}, SHARE_OF_BUDGET * held
    for name in names:
        if name == experiment.model.name:
            continue
        tried = experiment.override("model.name", name)
        needed = budget.trial_seconds(tried, place.dataset, place.call(step_time.measure_step_time, tried, steps=2))
        if needed > most:
            found[name] = (
                f"one trial of it would take about {needed / 60:.1f} minutes, of {held / 60:.1f} for all trials"
            )
    return found


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


def _costs(experiment: Experiment, place: MeasurementNode, space: Space) -> dict[str, dict[str, float]]:
    """Latency and size of each architecture, measured while nothing else runs."""
    names, own = space.get("model.name"), experiment.model.name
    every = names.values if isinstance(names, Choice) else (own,)
    return {
        name: place.call(step_time.measure_prediction, experiment.override("model.name", name), experiment.data.batch)
        for name in dict.fromkeys((own, *every))
    }


def single_trial_plan(plan: Plan) -> Plan:
    """The plan of one last trial, which has the machine to itself and is not stopped early."""
    resources = connect()
    experiment = plan.experiment.override_all(
        {"search.scheduler": "none", "search.trials": 1, "search.algorithm": "random"}
    )
    return dataclasses.replace(
        plan, experiment=experiment, at_once=1, reserved=trial_resources(experiment.workers, resources)
    )
