"""What an experiment would take: python jobs/plan.py --data.path photos/ --kind g5.xlarge --up_to 16

Measures a few steps here, and says for 1, 2, 4, ... workers how long the training takes, where its time goes, what
memory and network it wants and what it costs, and warns of obvious wastes. Machines and prices: cluster/prices.yaml.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import PositiveInt  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import SLICES, BeginningOptions, Request, Verb  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class PlanOptions(BeginningOptions):
    kind: str = "here"
    """The machines: here, or a name from the file of prices."""
    up_to: PositiveInt = 8
    """The largest number of workers to plan for."""
    prices: str = str(Path(__file__).resolve().parent.parent / "cluster" / "prices.yaml")
    """YAML file of machines: gpus, tflops, memory_gib, cores, network_gbit, dollars_an_hour."""


VERB = Verb(
    name="plan",
    summary="Say what time, memory, network and money an experiment takes on N workers, from a few steps here.",
    examples=(
        "plan.py --data.path photos/",
        "plan.py --recipe finetune --data.path photos/ --model.name resnet50 --kind g5.xlarge --up_to 16",
    ),
    options=PlanOptions,
    slices=SLICES,
)


def plan(request: Request) -> None:
    """Measure, forecast, warn."""
    from jobs.steps import scaling_forecast, session

    experiment = request.experiment()
    kind = scaling_forecast.kind_of(request.options.kind, request.options.prices)
    with session.open_run(VERB.name, request.options, subject=experiment.data.path) as (run, journal):
        forecasts = scaling_forecast.of(experiment, kind, request.options.up_to)
        for thing in scaling_forecast.told(forecasts, kind):
            journal.info(thing)
        run.write_result(VERB.name, "finished", config=experiment.as_dict(), **scaling_forecast.plain(forecasts, kind))
        journal.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, plan)
