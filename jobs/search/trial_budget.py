"""How a search spends its minutes: how many trials at once, how long each is, and what is too slow to try.

Only decisions: plan.py makes the measurements that they need.
"""

import math
from typing import Any

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.profiling.step_time import StepTime
from classifier.search import budget
from classifier.training.resolve import resolve

# A trial that takes more than this share of the minutes ends too late to be compared.
MAX_TRIAL_SHARE = 0.5
# The minutes must hold this many trials, one after the other, before two run at once: one at a time, each ends sooner.
ROUNDS_BEFORE_PARALLEL = 6
# A winner is refit on its validation images too if they are more than this share of training and validation images.
MIN_REFIT_SHARE = 1 / 7
# With fewer validation images than this, trials can hardly be compared.
MIN_VALIDATION_IMAGES = 100
# If the minutes hold this many trials, this share of them is for trials, the rest for a longer training of the best.
MIN_ROUNDS_FOR_LONGER, SHARE_BEFORE_LONGER = 4, 0.5
# Minutes that hold fewer trainings than this, all epochs included, are spent on one: two would both be cut short.
MIN_ROUNDS_FOR_SEARCH = 1.5
# Of the seconds for trials, the first actor takes some to start; a training is planned to use this share of the rest.
ACTOR_START_SECONDS, TIME_MARGIN = 8.0, 0.92
# The minutes should hold this many trials before a refit, which alone has all epochs; but each trial has at least this
# share of the epochs, or its score says nothing.
ROUNDS_BEFORE_REFIT, MIN_EPOCH_SHARE = 4, 0.25


def choose_final(experiment: Experiment, train_images: int, validation_images: int) -> tuple[Experiment, list[str]]:
    """Set search.final if the user did not: on if validation holds back many of the images; and a note on it."""
    if experiment.search.final is not None:
        return experiment, []
    can_refit = experiment.search.scheduler != "pbt" and experiment.workers.count == 1
    final = can_refit and validation_images > MIN_REFIT_SHARE * (train_images + validation_images)
    note = (
        f"the winner will be refit with its {validation_images} validation images; "
        "disable this with --search.final false"
    )
    return experiment.override("search.final", final), [note] if final else []


def warn_of_few_images(validation_images: int, *, final: bool) -> list[str]:
    """A note if the standard error of an accuracy is above five points."""
    if validation_images >= MIN_VALIDATION_IMAGES:
        return []
    hint = "" if final else ", and --search.final true to refit the winner on all images"
    return [
        f"with {validation_images} validation images the standard error of an accuracy is up to "
        f"{50 / math.sqrt(validation_images):.0f} points: use a larger --data.validation{hint}"
    ]


def fit_single_trial(
    experiment: Experiment,
    dataset: Dataset,
    step_time: StepTime,
    *,
    spent_seconds: float,
    node_cores: int,
    probe: dict[str, Any] | None = None,
) -> tuple[Experiment, list[str]] | None:
    """The one training that the minutes hold, of as many epochs as fit, and a note on it; None if they hold a search.

    experiment: not resolved; it is not refit. spent_seconds: of the minutes, until now. probe: what makes a linear
    probe of it: then that is the one, as it takes seconds.
    """
    search, workers = experiment.search, experiment.workers
    if search.scheduler == "pbt" or search.algorithm == "grid" or search.start_from or search.final:
        return None  # these need several trials, or time for a refit
    alone = experiment.override("search.final", False)
    if workers.count == 1 and workers.cpus is None:
        alone = alone.override("workers.cpus", float(node_cores))
    conclusion = budget.estimate_conclusion(resolve(alone, dataset), dataset, step_time)
    other_seconds = spent_seconds + ACTOR_START_SECONDS + conclusion.total_seconds()
    left, whole = _budget_seconds(experiment) - other_seconds, budget.trial_seconds(alone, dataset, step_time)
    rounds = MIN_ROUNDS_FOR_SEARCH if search.trials > 1 else 1 / MAX_TRIAL_SHARE
    if left >= rounds * whole:
        return None
    minutes = math.ceil((other_seconds + MIN_ROUNDS_FOR_SEARCH * whole) / 60)
    if probe:
        note = f"the minutes hold one training only, which is a linear probe; a search takes {minutes} or more"
        refit, refit_notes = choose_final(experiment, len(dataset.train), len(dataset.validation))  # as quick
        changes = {"search.trials": 1, "search.final": refit.search.final}
        return alone.override_all(changes | probe), [*refit_notes, note]
    wanted = experiment.train.epochs
    low, high = 1, wanted  # epochs that fit, or the one that every training has; at most so many do
    while low < high:
        middle = (low + high + 1) // 2
        seconds = budget.trial_seconds(alone.override("train.epochs", middle), dataset, step_time)
        low, high = (middle, high) if seconds <= TIME_MARGIN * left else (low, middle - 1)
    alone = alone.override_all({"train.epochs": low, "search.trials": 1})
    notes = []
    if search.trials > 1:
        notes.append(f"the minutes hold one training only, of the recipe itself; a search takes {minutes} or more")
    if low < wanted:
        notes.append(f"{wanted} epochs would take {whole / 60:.1f} minutes: the training is cut to {low}")
    return alone, notes


def count_trials(experiment: Experiment, dataset: Dataset, step_time: StepTime, seconds: float) -> int:
    """How many trials of all epochs, none stopped early, end within so many seconds; at least one."""
    return max(1, int(seconds / budget.trial_seconds(experiment, dataset, step_time)))


def fit_trials(
    experiment: Experiment, dataset: Dataset, step_time: StepTime, *, resources: dict[str, float], node_cores: int
) -> tuple[Experiment, list[str]]:
    """Fit trials to search.minutes, and notes on it: first fewer at once, with more cores each; then fewer epochs.

    resources: the cluster's. node_cores: of its largest node.
    """
    experiment, at_once = split_cores(experiment, dataset, step_time, resources=resources, node_cores=node_cores)
    return cut_epochs(experiment, dataset, step_time, at_once=at_once)


def split_cores(
    experiment: Experiment, dataset: Dataset, step_time: StepTime, *, resources: dict[str, float], node_cores: int
) -> tuple[Experiment, int]:
    """Set workers.cpus so that enough trials end in time; and how many of them then share the cores."""
    workers = experiment.workers
    if resources.get("GPU", 0) or workers.count > 1 or workers.cpus is not None:
        return experiment, 1
    cores = resources["CPU"]
    trial_seconds = budget.trial_seconds(experiment, dataset, step_time)
    at_once = int(min(cores, max(1, _budget_seconds(experiment) / (ROUNDS_BEFORE_PARALLEL * trial_seconds))))
    cpus = max(1, min(int(cores / at_once), node_cores))
    return experiment.override("workers.cpus", float(cpus)), at_once


def cut_epochs(
    experiment: Experiment, dataset: Dataset, step_time: StepTime, *, at_once: int
) -> tuple[Experiment, list[str]]:
    """Shorten trials if too few would end in time, and a note on it; at_once of them share the machine.

    If the winner is refit, only the refit needs all epochs: trials just have to be compared.
    """
    search, epochs, seconds = experiment.search, experiment.train.epochs, _budget_seconds(experiment)
    trial_seconds = at_once * budget.trial_seconds(experiment, dataset, step_time)
    max_epochs = int(epochs * MAX_TRIAL_SHARE * seconds / trial_seconds)
    if search.final and not search.epochs and search.scheduler != "pbt":
        refit_epochs = search.final_epochs or epochs
        conclusion = budget.estimate_conclusion(resolve(experiment, dataset), dataset, step_time)
        left_seconds = seconds - conclusion.total_seconds()
        epochs_for_rounds = epochs * left_seconds / (ROUNDS_BEFORE_REFIT * trial_seconds)
        fewer = max(1, min(int(max(MIN_EPOCH_SHARE * epochs, epochs_for_rounds)), max_epochs))
        if fewer < epochs:
            note = f"the refit has {refit_epochs} epochs, trials have {fewer}, so that several fit into the minutes"
            return experiment.override_all({"train.epochs": fewer, "search.final_epochs": refit_epochs}), [note]
    fewer = max(1, max_epochs)
    if fewer < epochs:
        note = f"{epochs} epochs would take {trial_seconds / 60:.1f} minutes: trials are cut to {fewer}"
        return experiment.override("train.epochs", fewer), [note]
    return experiment, []


def choose_search_share(resolved: Experiment, dataset: Dataset, step_time: StepTime) -> float:
    """The share of the minutes for trials of equal length: half if they hold several and a longer training may follow,
    else all.
    """
    search = resolved.search
    can_train_longer = search.longer and search.scheduler != "pbt" and search.algorithm != "grid"
    # A refit that alone has all epochs is the longer training.
    can_train_longer = can_train_longer and "epochs" not in search.objective
    can_train_longer = can_train_longer and not (search.final and search.final_epochs)
    rounds = 60 * (search.minutes or 0.0) / budget.trial_seconds(resolved, dataset, step_time)
    return SHARE_BEFORE_LONGER if can_train_longer and rounds >= MIN_ROUNDS_FOR_LONGER else 1.0


def find_too_slow(trial_seconds: dict[str, float], budget_seconds: float) -> dict[str, str]:
    """The architectures of which one trial would take most of the seconds that all trials have, each with the reason.

    trial_seconds: of one trial, by architecture.
    """
    minutes = budget_seconds / 60
    return {
        name: f"one trial would take about {seconds / 60:.1f} minutes, all trials have {minutes:.1f}"
        for name, seconds in trial_seconds.items()
        if seconds > MAX_TRIAL_SHARE * budget_seconds
    }


def _budget_seconds(experiment: Experiment) -> float:
    return 60 * (experiment.search.minutes or math.inf)
