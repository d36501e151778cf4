"""What searches find in equal time: python tests/benchmarks/search.py OUT --set NAME PATH MINUTES [--seeds 3]

Each arm has the same minutes on the same machine, with the same model code, loop and search space:
  classifier   jobs/tune.py with its defaults: the recipe, the portfolio, TPE, ASHA; with --portfolio FILE, which
               tests/benchmarks/portfolio.py wrote, the portfolio is built from the other data sets
  not final    the same with --search.final false: the winner is not refit on its validation images
  bare         jobs/tune.py without recipe and portfolio
  ray random   Ray Tune's random search without a scheduler, as in its tutorial
  optuna       a script with Optuna's TPE and median pruner, one trial at a time on all cores
With few images, set a larger --validation and --splits, or chance decides. With --weights NAME FILE, every arm starts
from the same pretrained, frozen backbone. OUT/search.jsonl has a line per run; a later call resumes there. The table
shows the mean over the seeds, and when each arm passed the final score of `ray random`; OUT/search.png has the curves.
The best of many epochs on few images is partly luck. With --again N, the settings of each run's best trial are trained
N more times, from other seeds on the same images: `again` is the mean accuracy at the same epoch.
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
from classifier.config.recipes import AUTO, recipe, recipe_for
from classifier.data.dataset import Dataset
from classifier.evaluation.test_split import evaluate_test_split
from classifier.runs.folder import RunFolder, read_result
from classifier.runs.recorder import record_training
from classifier.runtime.distributed import pick_device
from classifier.search.space import Choice, Space, default_space
from classifier.training.resolve import resolve
from tests.benchmarks.portfolio import CANDIDATES, order

ROOT = Path(__file__).resolve().parent.parent.parent
Curve = list[tuple[float, float]]
# jobs/tune.py with another portfolio, given as the first argument.
WITH_PORTFOLIO = f"""
import json, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import classifier.search.portfolio
classifier.search.portfolio.PORTFOLIO = tuple(json.loads(sys.argv.pop(1)))
runpy.run_path({str(ROOT / "jobs" / "tune.py")!r}, run_name="__main__")
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """What every arm gets: a data set, minutes, a seed."""

    path: str
    minutes: float
    seed: int
    validation: float | None
    weights: tuple[str, str] | None = None
    splits: bool = False

    def recipe(self) -> str:
        known = recipe_for(self.path)  # what auto would choose has pretrained weights, which other arms lack
        return "finetune" if self.weights else "photos" if known == AUTO else known

    def changes(self) -> dict[str, Any]:
        changes: dict[str, Any] = {"data.validation": self.validation} if self.validation else {}
        changes |= {"data.split_seed": self.seed} if self.splits else {}
        if self.weights:
            changes |= {"model.name": self.weights[0], "model.weights": self.weights[1]}
        return {"data.path": self.path, "seed": self.seed} | changes

    def default_experiment(self) -> Experiment:
        """The default settings, with the data settings and epochs of the recipe: what a script would start from."""
        known = recipe(self.recipe())
        names = ["train.epochs", "data.validation", "data.batch"]
        names += ["model.freeze", "data.size"] if self.weights else []
        return Experiment().override_all({name: known.get(name) for name in names} | self.changes())


def run_tune(
    out: Path, task: Task, *, portfolio: list | None = None, bare: bool = False, final: bool | None = None
) -> tuple[Curve, float]:
    """Run jobs/tune.py; the best validation accuracy against seconds, and the test accuracy of its model."""
    args = [word for name, value in task.changes().items() for word in (f"--{name}", str(value))]
    args += ["--search.minutes", str(task.minutes), "--search.trials", "1000", "--search.final", str(final).lower()]
    if bare:
        file = out.parent / f"{out.name}.yaml"
        file.write_text(dump_experiment(task.default_experiment()))
        args += ["--experiment", str(file), "--search.portfolio", "false"]
    else:
        args += ["--recipe", task.recipe()]
    script = [str(ROOT / "jobs" / "tune.py")] if portfolio is None else ["-c", WITH_PORTFOLIO, json.dumps(portfolio)]
    command = [sys.executable, *script, *args, "--out", str(out.parent), "--name", out.name]
    start = time.time()
    with (out.parent / f"{out.name}.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    curve = read_curve(list((out / "trials").iterdir()), start)
    return curve, read_result(out)["test"]["accuracy"]


def portfolio_without(name: str, results: Path) -> list[dict]:
    """The portfolio built from all data sets but this one, which it must not know."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    others = [row for row in rows if row["set"] != name and row["kind"] == "scratch"]
    return [CANDIDATES["scratch"][one] for one in order(others, "scratch")[1:]]


def run_ray(out: Path, task: Task) -> tuple[Curve, float]:
    """Random search: every core trains a trial of its own to the end."""
    import ray
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    start = time.time()
    base = task.default_experiment()
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
        trial_dataset = data.load(base.data)
        for accuracy in train(base.override_all(config), trial_dataset, out / tune.get_context().get_trial_id()):
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
    return score_best(out, start, dataset)


def run_optuna(out: Path, task: Task) -> tuple[Curve, float]:
    """Run TPE and the median pruner, one trial after the other."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    start = time.time()
    base = task.default_experiment()
    dataset = data.load(base.data)
    space = default_space(base, len(dataset.train))

    def objective(trial: optuna.Trial) -> float:
        best = 0.0
        scores = train(base.override_all(suggest(trial, space)), dataset, out / f"{trial.number:03d}")
        for epoch, accuracy in enumerate(scores):
            best = max(best, accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune() or time.time() - start > 60 * task.minutes:
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=task.seed), pruner=optuna.pruners.MedianPruner()
    )
    study.optimize(objective, timeout=60 * task.minutes)
    return score_best(out, start, dataset)


def suggest(trial: Any, space: Space) -> dict:
    return {
        name: trial.suggest_categorical(name, list(values.values))
        if isinstance(values, Choice)
        else trial.suggest_float(name, values.low, values.high, log=values.log)
        for name, values in space.items()
    }


def train(experiment: Experiment, dataset: Dataset, folder: Path):
    """Train, and yield the validation accuracy of each epoch; the best model stays in the folder, as in every arm."""
    folder.mkdir(parents=True, exist_ok=True)
    experiment = resolve(experiment.override("checkpoint.epochs", 10**6), dataset)
    run = RunFolder(folder)
    run.write_experiment(experiment)
    for epoch in record_training(run, experiment, dataset):
        assert epoch.validation is not None
        yield epoch.validation["accuracy"]


def again(out: Path, seeds: range) -> list[float]:
    """The validation accuracies of the best trial's best epoch, with the same settings and other seeds."""
    best = best_trial([*out.glob("*/history.jsonl"), *out.glob("trials/*/history.jsonl")])
    base = read_experiment(best / "experiment.yaml").override("train.threads", None)  # a trial had a share of the cores
    number, scores = best_epoch(best / "history.jsonl")[1], []
    for seed in seeds:
        accuracies = train(base.override("seed", seed), data.load(base.data), out / "again" / str(seed))
        scores.append(next(itertools.islice(accuracies, number - 1, None)))
    return scores


def best_trial(histories: list[Path]) -> Path:
    """The folder of the trial with the best epoch."""
    return max(histories, key=best_epoch).parent


def best_epoch(history: Path) -> tuple[tuple[float, float], int]:
    """Accuracy and negated loss of a training's best epoch, and its number."""
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    validated = [row for row in rows if row["validation_accuracy"] is not None]  # a refit is not validated
    scores = [((row["validation_accuracy"], -row["validation_loss"]), row["epoch"]) for row in validated]
    return max(scores, default=((-1.0, 0.0), 0))


def read_curve(trials: list[Path], start: float) -> Curve:
    """Best validation accuracy so far against seconds since `start`, by the wall times of the TensorBoard events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points = []
    for folder in trials:
        if (folder / "tensorboard").is_dir():
            events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
            points += [(e.wall_time - start, e.value) for e in events.Scalars("validation/accuracy")]
    best, curve = 0.0, []
    for at, accuracy in sorted(points):
        if accuracy > best:
            best = accuracy
            curve.append((round(at, 1), round(accuracy, 6)))
    return curve


def score_best(out: Path, start: float, dataset: Dataset) -> tuple[Curve, float]:
    """The curve of an arm's trials, and the test accuracy of the best one."""
    histories = list(out.glob("*/history.jsonl"))
    curve = read_curve([path.parent for path in histories], start)
    best = best_trial(histories)
    device = read_experiment(best / "experiment.yaml").train.device
    return curve, evaluate_test_split(best, device=pick_device(device), dataset=dataset).scores["accuracy"]


ARMS: dict[str, Callable[..., tuple[Curve, float]]] = {
    "classifier": run_tune,
    "not final": functools.partial(run_tune, final=False),
    "bare": functools.partial(run_tune, bare=True),
    "ray random": run_ray,
    "optuna": run_optuna,
}

# These have a portfolio, which must not know the data set.
WITH_OUR_PORTFOLIO = ("classifier", "not final")


def table(rows: list[dict]) -> None:
    """Print the means of each arm on each data set, and how long it took to pass random search."""
    for set_name in dict.fromkeys(row["set"] for row in rows):
        print(f"\n{set_name}, {next(row['minutes'] for row in rows if row['set'] == set_name):g} minutes")
        print(
            f"{'':<12} {'validation':>11} {'again':>8} {'test':>18} {'seeds':>6}   passes ray random's last score after"
        )
        for arm in ARMS:
            runs_of_arm = [row for row in rows if row["set"] == set_name and row["arm"] == arm]
            if not runs_of_arm:
                continue
            validation = statistics.mean(row["curve"][-1][1] for row in runs_of_arm)
            tests = [row["test"] for row in runs_of_arm]
            spread = statistics.stdev(tests) if len(tests) > 1 else 0.0
            shares = [share for row in runs_of_arm if (share := share_to_pass(row, rows)) is not None]
            passed = (
                f"{statistics.mean(shares):.0%} of the time" if len(shares) == len(runs_of_arm) else "not on every seed"
            )
            scores = [score for row in runs_of_arm for score in row.get("again", [])]
            again_text = f"{statistics.mean(scores):.2%}" if scores else ""
            test = f"{statistics.mean(tests):>9.2%} ± {spread:.2%}"
            print(f"{arm:<12} {validation:>11.2%} {again_text:>8} {test} {len(runs_of_arm):>6}   {passed}")


def share_to_pass(row: dict, rows: list[dict]) -> float | None:
    """The share of the minutes after which a run matched the final score of random search with the same seed."""
    other = [r for r in rows if (r["set"], r["seed"], r["arm"]) == (row["set"], row["seed"], "ray random")]
    if not other:
        return None
    goal = other[0]["curve"][-1][1]
    return next((at / (60 * row["minutes"]) for at, accuracy in row["curve"] if accuracy >= goal), None)


def draw(rows: list[dict], path: Path) -> None:
    """Plot validation accuracy against minutes: a panel per data set, a line per run."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure, axes = plt.subplots(1, len(sets), figsize=(6 * len(sets), 4), squeeze=False)
    for axis, set_name in zip(axes[0], sets, strict=True):
        for colour, arm in zip(("C0", "C4", "C9", "C1", "C2"), ARMS, strict=True):
            for i, row in enumerate(row for row in rows if (row["set"], row["arm"]) == (set_name, arm)):
                xs, ys = [at / 60 for at, _ in row["curve"]], [accuracy for _, accuracy in row["curve"]]
                axis.step([*xs, row["minutes"]], [*ys, ys[-1]], colour, where="post", label=arm if i == 0 else None)
        axis.set(title=set_name, xlabel="minutes", ylabel="best validation accuracy")
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
    parser.add_argument("--splits", action="store_true", help="draw other validation images per seed, in every arm")
    parser.add_argument("--portfolio", type=Path, metavar="FILE")
    parser.add_argument("--weights", nargs=2, metavar=("NAME", "FILE"))
    parser.add_argument("--again", type=int, default=0, metavar="N")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = out / "search.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for name, path, minutes in args.sets:
        for seed in range(args.seeds):
            for arm in args.arms:
                if any((r["set"], r["seed"], r["arm"]) == (name, seed, arm) for r in rows):
                    continue
                folder = out / f"{name}-{arm.replace(' ', '-')}-{seed}-{time.strftime('%H%M%S')}"
                more = {}
                if arm in WITH_OUR_PORTFOLIO and args.portfolio:
                    more["portfolio"] = portfolio_without(name, args.portfolio)
                weights = args.weights and (args.weights[0], str(Path(args.weights[1]).resolve()))
                task = Task(str(Path(path).resolve()), float(minutes), seed, args.validation, weights, args.splits)
                curve, test = ARMS[arm](folder, task, **more)
                row = {"set": name, "seed": seed, "arm": arm, "minutes": task.minutes, "test": test, "curve": curve}
                if args.again:
                    row["again"] = again(folder, range(1000, 1000 + args.again))
                rows.append(row)
                with results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(f"{name} seed {seed} {arm}: validation {curve[-1][1]:.2%}, test {test:.2%}", flush=True)
    if rows:
        table(rows)
        draw(rows, out / "search.png")


if __name__ == "__main__":
    main()
