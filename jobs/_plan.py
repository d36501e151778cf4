"""What a search will do, decided and checked before its first trial."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier import cost, models
from classifier.config import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, ConfigError, RunError
from classifier.files import write_atomically
from classifier.portfolio import portfolio_for
from classifier.resolve import resolve
from classifier.run import read_result, read_yaml
from classifier.space import Choice, Space, grid, space_from
from jobs import _ray
from jobs._guide import Past, Sample, Seen, first_samples, samples_in, unique
from jobs._schedulers import scheduler

# A trial that would take more than this share of the minutes cannot be told from a bad one in time.
SHARE_OF_BUDGET = 0.5
# So many trials after one another must fit into the minutes before two run at once: each has its answer sooner alone.
ROUNDS = 6
# Validation and checkpoints beside the steps, as a factor.
VALIDATING = 1.1
# Seconds to pack a model and write the results, beside reading the test split.
PACKING = 3.0
SAVE_EVERY = 5.0
BEST_OF_EARLIER = 3


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
    final_seconds: float
    notes: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

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
        budget = f"{trials} trials of {self.experiment.train.epochs} epochs at most, {self.at_once} at once"
        if search.minutes:
            budget += f", {search.minutes:g} minutes, of which about {self.final_seconds:.0f} s are kept for "
            budget += "the last training and the test" if search.final else "the test"
        yield f"search {budget}, by {search.algorithm} and {search.scheduler}, for {', '.join(search.objective)}:"
        yield from (f"  {name:<22} {values}" for name, values in self.space.items())
        if self.portfolio:
            yield f"first the recipe itself, then {len(self.portfolio)} settings that were good on other images"
        yield from (f"note: {note}" for note in self.notes)
        if len(search.objective) > 1 and self.costs:
            for name, costs in self.costs.items():
                yield f"  {name:<22} {costs['latency']:.2f} ms an image, {costs['size']:,.0f} parameters"


def plan(experiment: Experiment, dataset: Dataset, resumed: bool = False) -> Plan:
    """Check a search before anything starts, and cut its trials to its budget.

    resumed: the experiment is cut already. ConfigError on a bad space, or trials that the cluster cannot hold.
    """
    search = experiment.search
    file = read_yaml(search.space) if search.space else {}
    space = space_from(search.vary, file, experiment, len(dataset.train))
    is_own = bool(search.vary or search.space)
    if search.epochs:
        experiment = experiment.override("train.epochs", search.epochs)
    _refuse_what_models_refuse(experiment, space, dataset)
    cluster = _ray.connect(dashboard=experiment.workers.count > 1)
    _ray.refuse_unplaceable(experiment.workers, cluster)
    left_out: dict[str, str] = {}
    notes: list[str] = []
    step = 0.0
    if search.minutes:
        resolved = resolve(experiment, dataset)
        step = cost.step_seconds(resolved, dataset)
        if not resumed:
            experiment, notes = _cut(experiment, dataset, step, cluster)
        if not is_own and isinstance(names := space.get("model.name"), Choice):
            left_out = _too_slow(resolve(experiment, dataset), dataset, names)
    scheduler(experiment, space)  # refuses what it cannot do
    resolved = resolve(experiment, dataset)
    drafted = Plan(
        experiment=experiment,
        space=space,
        is_own=is_own,
        at_once=_ray.at_once(experiment.workers, cluster),
        reserved=_ray.reserved(experiment.workers, cluster),
        portfolio=[] if is_own or not search.portfolio else portfolio_for(experiment, dataset.size),
        costs=_costs(resolved, dataset, space) if {"latency", "size"} & set(search.objective) else {},
        final_seconds=_final_seconds(resolved, dataset, step),
        notes=[*notes, *(f"{name} is left out: {why}" for name, why in left_out.items())],
        left_out=tuple(left_out),
    )
    return dataclasses.replace(drafted, space=drafted.trimmed(space))


def _cut(
    experiment: Experiment, dataset: Dataset, step: float, cluster: dict[str, float]
) -> tuple[Experiment, list[str]]:
    """Fit the trials to the minutes: fewer at once, each with more cores, where few would end; then fewer epochs."""
    seconds, notes = 60 * (experiment.search.minutes or math.inf), []
    batch = experiment.data.batch * experiment.optimizer.accumulate
    alone = step * -(-len(dataset.train) // batch) * experiment.train.epochs * VALIDATING
    has_gpu = cluster.get("GPU", 0) > 0
    at_once = 1
    if not has_gpu and experiment.workers.count == 1 and experiment.workers.cpus is None:
        cores = cluster["CPU"]
        at_once = int(min(cores, max(1, seconds / (ROUNDS * alone))))
        cpus = max(1, min(int(cores / at_once), int(_ray.largest_node())))
        experiment = experiment.override("workers.cpus", float(cpus))
        alone *= at_once  # they share the cores
    epochs = experiment.train.epochs
    if alone > SHARE_OF_BUDGET * seconds:
        fewer = max(1, int(epochs * SHARE_OF_BUDGET * seconds / alone))
        if fewer < epochs:
            experiment = experiment.override("train.epochs", fewer)
            notes.append(f"{epochs} epochs would take {alone / 60:.1f} minutes: trials have {fewer}")
    return experiment, notes


def _final_seconds(resolved: Experiment, dataset: Dataset, step: float) -> float:
    """How long the end will take, from what a step takes: the test, and with search.final the last training."""
    if not step:  # nobody asked
        return PACKING
    images_a_second = resolved.data.batch * resolved.optimizer.accumulate / step
    # Prediction costs about a third of a step, and twice that with mirrored views.
    seconds = PACKING + len(dataset.test) / images_a_second * (2 if resolved.augment.test_flip else 1) / 2
    if resolved.search.final:
        seconds += (len(dataset.train) + len(dataset.validation)) * resolved.train.epochs / images_a_second
    return seconds


def _too_slow(resolved: Experiment, dataset: Dataset, names: Choice) -> dict[str, str]:
    """Architectures whose training would take most of the budget, with the reason; the recipe's own is never among."""
    found, seconds = {}, 60 * (resolved.search.minutes or math.inf)
    for name in names.values:
        if name == resolved.model.name:
            continue
        tried = resolved.override("model.name", name)
        steps = -(-len(dataset.train) // (tried.data.batch * tried.optimizer.accumulate)) * tried.train.epochs
        needed = steps * cost.step_seconds(tried, dataset, steps=1) * VALIDATING
        if needed > SHARE_OF_BUDGET * seconds:
            found[name] = f"one trial of it would take about {needed / 60:.1f} of the {seconds / 60:g} minutes"
    return found


def _refuse_what_models_refuse(experiment: Experiment, space: Space, dataset: Dataset) -> None:
    """Build what the space can name. ConfigError for a value that a model refuses."""
    for name, values in space.items():
        if not name.startswith("model.") or not isinstance(values, Choice):
            continue
        for value in values.values:
            tried = experiment.override(name, value).model
            try:
                models.build(
                    tried, classes=len(dataset.class_names), channels=dataset.channels, size=dataset.size, weights=False
                )
            except ClassifierError as error:
                raise ConfigError(f"the search space of {name} holds {value!r}: {error}") from None


def _costs(resolved: Experiment, dataset: Dataset, space: Space) -> dict[str, dict[str, float]]:
    """Latency and size of each architecture, measured while nothing else runs."""
    names = space.get("model.name")
    every = names.values if isinstance(names, Choice) else (resolved.model.name,)
    return {
        name: cost.prediction(resolved.override("model.name", name), dataset, resolved.data.batch)
        for name in dict.fromkeys((resolved.model.name, *every))
    }


def past_of(folder: Path, plan: Plan, dataset: Dataset) -> Past:
    """What the search knows already: its own earlier trials, or else what it begins with and was told to start from."""
    search, trials = plan.experiment.search, folder / "trials"
    start, seen = _from_earlier(Path(search.start_from), plan, dataset) if search.start_from else ([], [])
    if search.scheduler == "pbt":
        journals = sorted(trials.glob("*/history.jsonl"))
        members = [(path.parent.name, json.loads((path.parent / "changes.json").read_text())) for path in journals]
        mine = [Sample({"start": name} | changes, "resumed") for name, changes in members]
    else:
        mine = samples_in(trials)
    if not mine:
        first = first_samples(plan.experiment, plan.space, plan.portfolio)
        return Past(first=unique([first[0], *start, *first[1:]]), seen=seen)
    drawn = folder / "space.json"
    if not drawn.exists():
        return Past(first=mine, seen=seen)
    document = json.loads(drawn.read_text())
    space = space_from((), document["space"], plan.experiment, len(dataset.train))
    return Past(first=mine, seen=seen, base=document["base"], space=space)


def _from_earlier(folder: Path, plan: Plan, dataset: Dataset) -> tuple[list[Sample], list[Seen]]:
    """The earlier search's best settings as trials, and all its trials as seen, where the images were the same."""
    import pyarrow.parquet as pq

    if not (folder / "trials.parquet").is_file():
        raise RunError(f"search.start_from {folder}: this is no finished search (it has no trials.parquet)")
    rows, earlier, base = pq.read_table(folder / "trials.parquet").to_pylist(), read_result(folder), plan.experiment
    names = [name for name in rows[0] if "." in name]
    samples = [
        Sample({name: row[name] for name in names if row[name] != base.get(name)}, "start_from")
        for row in rows[:BEST_OF_EARLIER]
    ]
    before = earlier["config"]["train"]["epochs"]
    if earlier["dataset"]["fingerprint"] != dataset.fingerprint or before != base.train.epochs:
        return samples, []
    seen = [
        Seen(
            {name: row[name] for name in names},
            {name: row[f"validation_{name}"] for name in base.search.objective if f"validation_{name}" in row},
        )
        for row in rows
        if row["status"] == "finished"
    ]
    return samples, [one for one in seen if len(one.scores) == len(base.search.objective)]


def changed_since(folder: Path, dataset: Dataset) -> list[str]:
    """Remember what the search was begun with; on a later call, say what is not so any more.

    RunError if the images, labels or splits changed: the trials could not be compared.
    """
    path = folder / "begun_with.json"
    now = {"code": code_digest(), "dataset": dataset.fingerprint}
    before = json.loads(path.read_text()) if path.exists() else now
    if before["dataset"] != now["dataset"]:
        raise RunError(
            f"{folder} was begun on other images, labels or splits than {dataset.name} holds now: bring them back as "
            "they were, or begin a new search"
        )
    write_atomically(path, json.dumps(now) + "\n")
    return ["note: the code has changed since this search began"] if before["code"] != now["code"] else []


def code_digest() -> str:
    """16 hex digits over the source of both packages."""
    root, digest = Path(__file__).resolve().parent.parent, hashlib.sha256()
    for path in sorted((*(root / "classifier").rglob("*.py"), *(root / "jobs").rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Clock:
    """Seconds that a search has used for its trials, those of earlier processes counted in."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spent.json"
        self.before = json.loads(self.path.read_text())["seconds"] if self.path.exists() else 0.0
        self.began = self.saved = time.monotonic()

    def seconds(self) -> float:
        """Until now; kept on disk, every few seconds, for a process that takes over."""
        now = time.monotonic()
        spent = self.before + now - self.began
        if now - self.saved > SAVE_EVERY:
            self.saved = now
            write_atomically(self.path, json.dumps({"seconds": round(spent, 1)}) + "\n")
        return spent

    def left(self, plan: Plan) -> float:
        """For trials: what is left of the minutes, without what the end will take."""
        minutes = plan.experiment.search.minutes
        return math.inf if minutes is None else max(0.0, 60 * minutes - self.seconds() - plan.final_seconds)
