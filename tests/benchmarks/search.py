"""What a search finds in equal time: python tests/benchmarks/search.py OUT --set NAME PATH MINUTES [--seeds 3]

Ways to spend the same minutes on the same machine, with the same model code, loop and space of settings:
  classifier   jobs/tune.py as it comes: the recipe, the portfolio, TPE, ASHA; with --portfolio JOURNAL, what
               tests/benchmarks/portfolio.py wrote, the portfolio is the one that the other sets make
  not final    the same with --search.final false: the winner is not trained once more on its validation images
  bare         jobs/tune.py without recipe and portfolio
  ray random   Ray Tune's random search without a scheduler, as its tutorial has it
  optuna       a script with Optuna's TPE and median pruner, one trial at a time on all cores
Few images need a larger --validation, and --splits, or chance chooses. With --weights NAME FILE every arm begins with
the same pretrained, frozen backbone. A line a run in OUT/search.jsonl; started again, it goes on where it was. The
table has the mean over the seeds, and when each passed what `ray random` ended with; OUT/search.png has the curves.
The best of many epochs on few images is luck for a part. With --again N the best trial's settings of each run are
trained N times more, from other seeds on the same images: `again` is the mean accuracy of the same epoch then.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.files import dump_experiment, read_experiment
from classifier.config.recipes import recipe, recipe_for
from classifier.data.dataset import Dataset
from classifier.evaluation.test_split import evaluate_test_split
from classifier.runs.folder import Run, read_result
from classifier.runs.recorder import record_training
from classifier.runtime.distributed import pick_device
from classifier.search.space import Choice, Space, default_space
from classifier.training.resolve import resolve
from tests.benchmarks.portfolio import CANDIDATES, order

ROOT = Path(__file__).resolve().parent.parent.parent
Curve = list[tuple[float, float]]
# jobs/tune.py with another portfolio, which is the first word.
WITH_PORTFOLIO = f"""
import json, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import classifier.search.portfolio
classifier.search.portfolio.PORTFOLIO = tuple(json.loads(sys.argv.pop(1)))
runpy.run_path({str(ROOT / "jobs" / "tune.py")!r}, run_name="__main__")
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """What every arm is given: a data set, minutes, a seed."""

    path: str
    minutes: float
    seed: int
    validation: float | None
    weights: tuple[str, str] | None = None
    splits: bool = False

    def recipe(self) -> str:
        return "finetune" if self.weights else recipe_for(self.path)

    def changes(self) -> dict[str, Any]:
        held: dict[str, Any] = {"data.validation": self.validation} if self.validation else {}
        held |= {"data.split_seed": self.seed} if self.splits else {}
        if self.weights:
            held |= {"model.name": self.weights[0], "model.weights": self.weights[1]}
        return {"data.path": self.path, "seed": self.seed} | held

    def neutral(self) -> Experiment:
        """The defaults of every setting, with the recipe's data and epochs: what a script would begin with."""
        known = recipe(self.recipe())
        kept = ["train.epochs", "data.validation", "data.batch"]
        kept += ["model.freeze", "data.size"] if self.weights else []
        return Experiment().override_all({name: known.get(name) for name in kept} | self.changes())


def by_tune(
    out: Path, task: Task, *, portfolio: list | None = None, bare: bool = False, final: bool | None = None
) -> tuple[Curve, float]:
    """jobs/tune.py; the best validation accuracy against seconds, and the test accuracy of its model."""
    words = [word for name, value in task.changes().items() for word in (f"--{name}", str(value))]
    words += ["--search.minutes", str(task.minutes), "--search.trials", "1000", "--search.final", str(final).lower()]
    if bare:
        file = out.parent / f"{out.name}.yaml"
        file.write_text(dump_experiment(task.neutral()))
        words += ["--experiment", str(file), "--search.portfolio", "false"]
    else:
        words += ["--recipe", task.recipe()]
    script = [str(ROOT / "jobs" / "tune.py")] if portfolio is None else ["-c", WITH_PORTFOLIO, json.dumps(portfolio)]
    command = [sys.executable, *script, *words, "--out", str(out.parent), "--name", out.name]
    began = time.time()
    with (out.parent / f"{out.name}.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    curve = curve_of(list((out / "trials").iterdir()), began)
    return curve, read_result(out)["test"]["accuracy"]


def without(name: str, journal: Path) -> list[dict]:
    """The portfolio that all sets but this one make: it must not know what is searched."""
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    return [CANDIDATES[name] for name in order([row for row in rows if row["set"] != name])[1:]]


def by_ray(out: Path, task: Task) -> tuple[Curve, float]:
    """Random search: every core runs a trial of its own to its end."""
    import ray
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    began = time.time()
    base = task.neutral()
    dataset = data.load(base.data)
    space = default_space(base, len(dataset.train))
    domains = {
        name: tune.choice(list(values.values))
        if isinstance(values, Choice)
        else tune.loguniform(values.low, values.high)
        if values.log
        else tune.uniform(values.low, values.high)
        for name, values in space.items()
    }

    def trial(config: dict) -> None:
        held = data.load(base.data)
        for accuracy in trained(base.override_all(config), held, out / tune.get_context().get_trial_id()):
            tune.report({"accuracy": accuracy})

    path_of_workers = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env=path_of_workers)
    tuner = tune.Tuner(
        trial,
        param_space=domains,
        tune_config=tune.TuneConfig(
            num_samples=-1,
            time_budget_s=60 * task.minutes,
            metric="accuracy",
            mode="max",
            search_alg=BasicVariantGenerator(random_state=task.seed),
        ),
        run_config=tune.RunConfig(storage_path=str(out / "ray"), verbose=0),
    )
    tuner.fit()
    ray.shutdown()
    return tested(out, began, dataset)


def by_optuna(out: Path, task: Task) -> tuple[Curve, float]:
    """TPE and the median pruner, one trial after the other."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    began = time.time()
    base = task.neutral()
    dataset = data.load(base.data)
    space = default_space(base, len(dataset.train))

    def objective(trial: optuna.Trial) -> float:
        best = 0.0
        scores = trained(base.override_all(suggested(trial, space)), dataset, out / f"{trial.number:03d}")
        for epoch, accuracy in enumerate(scores):
            best = max(best, accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune() or time.time() - began > 60 * task.minutes:
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.seed), pruner=optuna.pruners.MedianPruner()
    )
    study.optimize(objective, timeout=60 * task.minutes)
    return tested(out, began, dataset)


def suggested(trial: Any, space: Space) -> dict:
    return {
        name: trial.suggest_categorical(name, list(values.values))
        if isinstance(values, Choice)
        else trial.suggest_float(name, values.low, values.high, log=values.log)
        for name, values in space.items()
    }


def trained(experiment: Experiment, dataset: Dataset, folder: Path):
    """The validation accuracy of each epoch; the best model stays in the folder, as in every other arm."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment = resolve(experiment.override("checkpoint.epochs", 10**6), dataset)
    run = Run(folder)
    run.write_experiment(experiment)
    for epoch in record_training(run, experiment, dataset):
        assert epoch.validation is not None
        yield epoch.validation["accuracy"]


def again(out: Path, seeds: range) -> list[float]:
    """The validation accuracy of the best trial's best epoch, with the same settings from other seeds."""
    best = best_trial([*out.glob("*/history.jsonl"), *out.glob("trials/*/history.jsonl")])
    base = read_experiment(best / "experiment.yaml").override("train.threads", None)  # it had a share of the machine
    number, scores = best_epoch(best / "history.jsonl")[1], []
    for seed in seeds:
        accuracies = trained(base.override("seed", seed), data.load(base.data), out / "again" / str(seed))
        scores.append(next(itertools.islice(accuracies, number - 1, None)))
    return scores


def best_trial(histories: list[Path]) -> Path:
    """The folder of the trial with the best epoch."""
    return max(histories, key=best_epoch).parent


def best_epoch(history: Path) -> tuple[tuple[float, float], int]:
    """Accuracy and loss, negated, of a training's best epoch, and its number."""
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    judged = [row for row in rows if row["validation_accuracy"] is not None]  # a search's last training is not
    scores = [((row["validation_accuracy"], -row["validation_loss"]), row["epoch"]) for row in judged]
    return max(scores, default=((-1.0, 0.0), 0))


def curve_of(trials: list[Path], began: float) -> Curve:
    """Best validation accuracy so far against seconds since `began`, by the clock of the TensorBoard events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for folder in trials:
        if (folder / "tensorboard").is_dir():
            events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
            found += [(e.wall_time - began, e.value) for e in events.Scalars("validation/accuracy")]
    best, curve = 0.0, []
    for at, accuracy in sorted(found):
        if accuracy > best:
            best = accuracy
            curve.append((round(at, 1), round(accuracy, 6)))
    return curve


def tested(out: Path, began: float, dataset: Dataset) -> tuple[Curve, float]:
    """The curve of an arm's trials, and the test accuracy of the best."""
    histories = list(out.glob("*/history.jsonl"))
    curve = curve_of([path.parent for path in histories], began)
    best = best_trial(histories)
    device = read_experiment(best / "experiment.yaml").train.device
    return curve, evaluate_test_split(best, device=pick_device(device), dataset=dataset).scores["accuracy"]


ARMS: dict[str, Callable[..., tuple[Curve, float]]] = {
    "classifier": by_tune,
    "not final": functools.partial(by_tune, final=False),
    "bare": functools.partial(by_tune, bare=True),
    "ray random": by_ray,
    "optuna": by_optuna,
}

# They have a portfolio, which must not know the set.
KNOWING = ("classifier", "not final")


def table(rows: list[dict]) -> None:
    """The mean of each arm on each set, and what it took to pass random search."""
    for one in dict.fromkeys(row["set"] for row in rows):
        print(f"\n{one}, {next(row['minutes'] for row in rows if row['set'] == one):g} minutes")
        print(
            f"{'':<12} {'validation':>11} {'again':>8} {'test':>18} {'seeds':>6}   passes ray random's last score after"
        )
        for arm in ARMS:
            mine = [row for row in rows if row["set"] == one and row["arm"] == arm]
            if not mine:
                continue
            validation = statistics.mean(row["curve"][-1][1] for row in mine)
            tests = [row["test"] for row in mine]
            spread = statistics.stdev(tests) if len(tests) > 1 else 0.0
            shares = [share for row in mine if (share := passing(row, rows)) is not None]
            words = f"{statistics.mean(shares):.0%} of the time" if len(shares) == len(mine) else "not on every seed"
            scores = [score for row in mine for score in row.get("again", [])]
            told = f"{statistics.mean(scores):.2%}" if scores else ""
            test = f"{statistics.mean(tests):>9.2%} ± {spread:.2%}"
            print(f"{arm:<12} {validation:>11.2%} {told:>8} {test} {len(mine):>6}   {words}")


def passing(row: dict, rows: list[dict]) -> float | None:
    """The share of the minutes after which a run was as good as random search of the same seed at its end."""
    other = [r for r in rows if (r["set"], r["seed"], r["arm"]) == (row["set"], row["seed"], "ray random")]
    if not other:
        return None
    goal = other[0]["curve"][-1][1]
    return next((at / (60 * row["minutes"]) for at, accuracy in row["curve"] if accuracy >= goal), None)


def draw(rows: list[dict], path: Path) -> None:
    """Validation accuracy against minutes, a panel a set, a line a run."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = plt.subplots(1, len(sets), figsize=(6 * len(sets), 4), squeeze=False)
    for axis, one in zip(axes[0], sets, strict=True):
        for colour, arm in zip(("C0", "C4", "C9", "C1", "C2"), ARMS, strict=True):
            for i, row in enumerate(row for row in rows if (row["set"], row["arm"]) == (one, arm)):
                xs, ys = [at / 60 for at, _ in row["curve"]], [accuracy for _, accuracy in row["curve"]]
                axis.step([*xs, row["minutes"]], [*ys, ys[-1]], colour, where="post", label=arm if i == 0 else None)
        axis.set(title=one, xlabel="minutes", ylabel="best validation accuracy")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", nargs=3, action="append", default=[], metavar=("NAME", "PATH", "MINUTES"), dest="sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--validation", type=float, metavar="SHARE", help="of the training images, in every arm")
    parser.add_argument("--splits", action="store_true", help="other validation images for each seed, in every arm")
    parser.add_argument("--portfolio", type=Path, metavar="JOURNAL")
    parser.add_argument("--weights", nargs=2, metavar=("NAME", "FILE"))
    parser.add_argument("--again", type=int, default=0, metavar="N")
    words = parser.parse_args()
    out = words.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    journal = out / "search.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    for name, path, minutes in words.sets:
        for seed in range(words.seeds):
            for arm in words.arms:
                if any((r["set"], r["seed"], r["arm"]) == (name, seed, arm) for r in rows):
                    continue
                folder = out / f"{name}-{arm.replace(' ', '-')}-{seed}-{time.strftime('%H%M%S')}"
                more = {"portfolio": without(name, words.portfolio)} if arm in KNOWING and words.portfolio else {}
                weights = words.weights and (words.weights[0], str(Path(words.weights[1]).resolve()))
                task = Task(str(Path(path).resolve()), float(minutes), seed, words.validation, weights, words.splits)
                curve, test = ARMS[arm](folder, task, **more)
                row = {"set": name, "seed": seed, "arm": arm, "minutes": task.minutes, "test": test, "curve": curve}
                if words.again:
                    row["again"] = again(folder, range(1000, 1000 + words.again))
                rows.append(row)
                with journal.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(f"{name} seed {seed} {arm}: validation {curve[-1][1]:.2%}, test {test:.2%}", flush=True)
    if rows:
        table(rows)
        draw(rows, out / "search.png")


if __name__ == "__main__":
    main()
