"""The overhead of a search over its trainings: python tests/benchmarks/orchestration.py [--trials 1000]

First 20 trainings of one epoch, one after the other on all cores: by jobs/tune.py, and by a plain loop around the same
code. Then many trivial trials, two at once: by jobs/tune.py, and by a plain Tune function around the same code, with
the driver's peak memory until they end. Start-up, which is paid once, is reported separately.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
from PIL import Image

from classifier import data
from classifier.config.experiment import Experiment
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training
from classifier.training.resolve import resolve

ROOT = Path(__file__).resolve().parent.parent.parent
LOOP_TRAININGS = 20


def tune(out: Path, path: str, trials: int, *args: str) -> dict:
    """Search with trials of one epoch; seconds until the first and the last report, and the driver's peak MiB."""
    argv = [str(ROOT / "jobs" / "tune.py"), "--data.path", path, "--train.epochs", "1", "--search.algorithm", "random"]
    argv += [
        "--search.trials",
        str(trials),
        "--search.portfolio",
        "false",
        "--search.vary",
        "optimizer.lr=1e-4..1e-2:log",
    ]
    argv += ["--out", str(out), "--name", f"tune-{trials}", *args]
    # Memory until the last trial ends: a plain Tune function neither tests nor writes reports.
    code = f"""
import resource, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
from jobs.cli.environment import setup
setup()  # before the next line imports Ray
from jobs.search import conclude
def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
peaks, finish = [], conclude.finish
def finish_measured(*args):
    peaks.append(peak_mib())
    return finish(*args)
conclude.finish = finish_measured
sys.argv = {argv!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(peak_mib(), *peaks)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, last = json.loads((out / f"tune-{trials}" / "result.json").read_text())["search_seconds"]
    end, mib = (float(word) for word in done.stdout.split()[-2:])
    return {"first": first, "last": last, "mib": mib, "end": end}


def loop(out: Path, path: str, trials: int, **changes: object) -> float:
    """Seconds per training, in one process with all cores."""
    base = Experiment().override_all({"data.path": path, "train.epochs": 1} | changes)
    dataset = data.load(base.data)
    began = 0.0
    for trial in range(trials + 1):
        if trial == 1:  # the first is warm-up
            began = time.perf_counter()
        experiment = resolve(base.override("optimizer.lr", 10 ** np.random.uniform(-4, -2)), dataset)
        run = RunFolder(out / f"loop-{trial}")
        run.folder.mkdir(parents=True)
        run.write_experiment(experiment)
        list(record_training(run, experiment, dataset))
    return (time.perf_counter() - began) / trials


def bare_tune(out: Path, path: str, trials: int) -> dict:
    """Run a plain Tune function around the same code, in a process of its own."""
    code = f"""
import json, resource, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import ray
from ray import tune
from classifier import data
from classifier.config.experiment import Experiment
from classifier.runs.recorder import record_training
from classifier.training.resolve import resolve
from classifier.runs.folder import RunFolder
base = Experiment().override_all({{"data.path": {path!r}, "train.epochs": 1, "model.name": "cnn", "data.batch": 16}})
dataset = data.load(base.data)
times = []
def trial(config, dataset=None):
    experiment = resolve(base.override("optimizer.lr", config["lr"]), dataset)
    run = RunFolder(Path({str(out)!r}) / tune.get_context().get_trial_id())
    run.folder.mkdir(parents=True)
    run.write_experiment(experiment)
    for epoch in record_training(run, experiment, dataset):
        tune.report({{"accuracy": epoch.validation["accuracy"]}})
class Times(tune.Callback):
    def on_trial_result(self, **_):
        times.append(time.monotonic())
ray.init(include_dashboard=False, log_to_driver=False, runtime_env={{"env_vars": {{"PYTHONPATH": {str(ROOT)!r}}}}})
began = time.monotonic()
tune.Tuner(tune.with_parameters(trial, dataset=dataset), param_space={{"lr": tune.loguniform(1e-4, 1e-2)}},
    tune_config=tune.TuneConfig(num_samples={trials}, reuse_actors=True),
    run_config=tune.RunConfig(storage_path={str(out / "ray")!r}, verbose=0, callbacks=[Times()])).fit()
print(json.dumps({{"first": times[0] - began, "last": times[-1] - began,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_tiny_images(folder: Path) -> str:
    """Write forty images of 8 x 8 pixels, in two classes."""
    rng = np.random.default_rng(0)
    for i in range(40):
        class_folder = folder / ("dark" if i % 2 else "light")
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 90, (8, 8), dtype=np.uint8) + 90 * (i % 2 == 0)).convert("L").save(
            class_folder / f"{i}.png"
        )
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        single = loop(out / "a", "digits", LOOP_TRAININGS, **{"model.name": "resnet9_16", "optimizer.ema": 0.98})
        measured = tune(out, "digits", LOOP_TRAININGS, "--workers.cpus", "2")
        each = (measured["last"] - measured["first"]) / (LOOP_TRAININGS - 1)
        print(
            f"{LOOP_TRAININGS} trainings of one epoch of digits: "
            f"{single:.2f} s each in a plain loop, {each:.2f} s by tune"
        )
        print(
            f"  ratio {each / single:.2f}, {each - single:.2f} s per trial; "
            f"the first report after {measured['first']:.1f} s"
        )
        path = write_tiny_images(out / "images")
        for trials in (args.trials // 4, args.trials):
            small = ("--model.name", "cnn", "--data.batch", "16")
            ours = tune(out, path, trials, *small)
            theirs = bare_tune(out / f"b{trials}", path, trials)
            for name, one in (("tune", ours), ("bare Tune", theirs)):
                one["each"] = (one["last"] - one["first"]) / (trials - 1)
                print(
                    f"{trials:>5} trivial trials, {name:<9} {one['first']:4.1f} s to the first report, "
                    f"{1000 * one['each']:3.0f} ms each, {one['mib']:4,.0f} MiB"
                )
            ratios = (ours[name] / theirs[name] for name in ("each", "mib"))
            print("      tune / bare Tune: time {:.2f}, memory {:.2f}".format(*ratios), end="")
            print(f"; with its test and reports {ours['end']:,.0f} MiB")


if __name__ == "__main__":
    main()
