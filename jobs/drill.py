"""Fire drill (does a killed training lose anything?): python jobs/drill.py photos/ --workers.count 2

Trains a short version of your experiment twice, on this machine or cluster and its storage: once without interruption,
once killed at seeded moments and resumed. Then compares weights, order of the images and history, and reports what a
fault cost. Exit code 1 if they differ.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from classifier.config.fields import PositiveInt

from .cli.command import main
from .cli.verb import EXIT_DONE, EXIT_FAILED, SECTIONS, ExperimentOptions, Request, Verb


@dataclass(frozen=True, kw_only=True)
class DrillOptions(ExperimentOptions):
    faults: PositiveInt = 4
    """How often the second training is killed."""
    nodes: bool = False
    """Also kill whole nodes of the cluster, through their Ray process; never this node or the head."""
    storage: str | None = None
    """Copy both trainings to this storage, as train does: s3://bucket/drills, gs://..., or a shared path."""


VERB = Verb(
    name="drill",
    examples=(
        "# the built-in digits, in a minute or two",
        "photos/ --faults 8",
        "photos/ --workers.count 2 --storage s3://bucket/drills",
    ),
    options=DrillOptions,
    sections=SECTIONS,
    common=("train.epochs", "model.name", "checkpoint.steps", "workers.count"),
)


def drill(request: Request) -> int:
    """Train without interruption, then with kills, and compare."""
    from .cli.console import RunLog
    from .steps import fire_drill
    from .steps.compare_runs import compare_runs
    from .steps.output_run import open_run
    from .steps.recipe import request_experiment, use_cores

    options = request.options
    with RunLog() as log, use_cores(request, log):
        requested = request_experiment(request, log, in_steps=True)
        experiment = fire_drill.drill_experiment(requested, options.faults, request.changes)
    with open_run(options, requested.data.path, keep=True) as (run, log):
        drill = fire_drill.Drill(run.folder, experiment, options.storage, kills_nodes=options.nodes)
        log.info(drill.describe())
        uninterrupted = fire_drill.train_uninterrupted(drill)
        log.info(
            f"uninterrupted: {uninterrupted.seconds:.1f} s, of which {uninterrupted.training_seconds:.1f} s training"
        )
        faults = []
        for fault in fire_drill.train_interrupted(drill, uninterrupted, options.faults):
            faults.append(fault)
            log.info(fault.line())
        comparison = compare_runs(run.folder / fire_drill.UNINTERRUPTED, run.folder / fire_drill.INTERRUPTED)
        for line in comparison.lines():
            log.info(line)
        log.info(fire_drill.conclude(faults, comparison))
        result = {"passed": comparison.is_equal, "faults": [dataclasses.asdict(fault) for fault in faults]}
        run.write_result(VERB.name, "finished", config=experiment.as_dict(), **result, **comparison.as_dict())
        log.info(str(run.folder))
    return EXIT_DONE if comparison.is_equal else EXIT_FAILED


if __name__ == "__main__":
    main(VERB, drill)
