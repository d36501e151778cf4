"""Forecast what a training takes: python jobs/plan.py photos/ --kind g5.xlarge --up_to 16

Measures a few steps here and forecasts, for 1, 2, 4, ... workers, how long the training takes, where the time goes, how
much memory and network it needs and what it costs. Warns of obvious waste. Machines and prices: cluster/prices.yaml.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveInt

from .cli.command import main
from .cli.environment import VERBS
from .cli.verb import SECTIONS, ExperimentOptions, Request, Verb

# Installed, the folder cluster/ lies inside of the verbs' package.
PRICES = next(folder / "cluster" / "prices.yaml" for folder in (VERBS, VERBS.parent) if (folder / "cluster").is_dir())


@dataclass(frozen=True, kw_only=True)
class PlanOptions(ExperimentOptions):
    kind: str = "here"
    """Type of the machines: here, or a name from the prices file."""
    up_to: PositiveInt = 8
    """The largest number of workers to plan for."""
    prices: str = str(PRICES)
    """YAML file of machine types: gpus, tflops, memory_gib, cores, network_gbit, dollars_an_hour."""


VERB = Verb(
    name="plan",
    examples=(
        "photos/",
        "photos/ --model.name resnet50 --kind g5.xlarge",
    ),
    options=PlanOptions,
    sections=SECTIONS,
    common=("train.epochs", "model.name", "data.batch", "data.size", "workers.count"),
)


def plan(request: Request) -> None:
    """Measure, forecast and warn."""
    from .steps import scaling_forecast
    from .steps.output_run import open_run
    from .steps.recipe import request_experiment, use_cores

    options, path = request.options, request.experiment().data.path
    machine = scaling_forecast.find_machine_type(options.kind, options.prices)
    with open_run(options, path) as (run, log), use_cores(request, log):
        experiment = request_experiment(request, log, in_steps=True)
        forecasts = scaling_forecast.forecast_workers(experiment, machine, options.up_to)
        for item in scaling_forecast.describe(forecasts, machine):
            log.info(item)
        result = scaling_forecast.as_result(forecasts, machine)
        run.write_result(VERB.name, "finished", config=experiment.as_dict(), **result)
        log.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, plan)
