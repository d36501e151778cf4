"""The fire drill: python jobs/drill.py --data.path photos/ --workers.count 2

Trains a small piece of your experiment twice, on this machine or cluster and its storage: once unbroken, once killed at
seeded moments and taken up again. It ends with whether weights, order of the images and figures are equal, and with
what a fault cost. Exit code 1 if they are not.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classifier.config.fields import PositiveInt  # noqa: E402
from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import EXIT_DONE, EXIT_FAILED, SLICES, BeginningOptions, Request, Verb  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class DrillOptions(BeginningOptions):
    faults: PositiveInt = 4
    """How often the second training is killed."""
    nodes: bool = False
    """Kill whole nodes of the cluster too, by their Ray process; never this one's nor the head's."""
    storage: str | None = None
    """Where the copies of both trainings are kept, as for train."""


VERB = Verb(
    name="drill",
    summary="Prove on your own experiment, machine and storage that a killed training loses nothing.",
    examples=(
        "drill.py                                    # the embedded digits, in a minute or two",
        "drill.py --data.path photos/ --faults 8",
        "drill.py --data.path photos/ --workers.count 2 --storage s3://bucket/drills",
    ),
    options=DrillOptions,
    slices=SLICES,
)


def drill(request: Request) -> int:
    """Train the piece unbroken, then broken, compare, and say what was proven."""
    from jobs.steps import fire_drill, session

    experiment = request.experiment()
    piece = fire_drill.piece_of(experiment, request.options.faults, chosen=request.changes)
    with session.open_run(VERB.name, request.options, subject=experiment.data.path, keep=True) as (run, journal):
        setting = fire_drill.Setting(run.folder, piece, request.options.storage, kills_nodes=request.options.nodes)
        for line in setting.lines():
            journal.info(line)
        calm = fire_drill.unbroken(setting)
        journal.info(f"unbroken: {calm.seconds:.1f} s, {calm.training_seconds:.1f} s of them training")
        faults = []
        for fault in fire_drill.broken(setting, calm, request.options.faults):
            faults.append(fault)
            journal.info(fault.line())
        verdict = fire_drill.compared(setting, faults)
        for thing in verdict.told():
            journal.info(thing)
        run.write_result(VERB.name, "finished", config=piece.as_dict(), **verdict.plain())
        journal.info(str(run.folder))
    return EXIT_DONE if verdict.passed else EXIT_FAILED


if __name__ == "__main__":
    main(VERB, drill)
