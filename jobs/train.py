"""Train a classifier: python jobs/train.py photos/

One worker trains in this process. With --workers.count N, N Ray workers train together; under torchrun, the processes
that it launched. The run folder holds the best model so far (bundle/), history.jsonl, checkpoints to resume from and,
at the end, result.json.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from .cli.command import main
from .cli.verb import EXIT_DONE, SECTIONS, Request, TrainingOptions, Verb

VERB = Verb(
    name="train",
    examples=(
        "# the built-in digits, in seconds",
        "photos/  # a folder with one subfolder per class",
        "fashion-mnist/ --recipe fashion-quick",
        "photos/ --workers.count 2 --train.epochs 30",
        "--resume runs/NAME",
    ),
    options=TrainingOptions,
    sections=SECTIONS,
    common=(
        "train.epochs",
        "train.minutes",
        "model.name",
        "model.weights",
        "data.batch",
        "data.size",
        "optimizer.lr",
        "workers.count",
        "seed",
    ),
)


def train(request: Request) -> int:
    """Load the data, train, save the bundle and the result."""
    from .launch import torchrun
    from .steps import training
    from .steps.session import open_session

    if request.options.dry_run:
        from .steps.dry_run import dry_run

        dry_run(request)
        return EXIT_DONE
    if torchrun.world_size() > 1:
        request = torchrun.set_worker_count(request)
        if torchrun.is_follower():
            return torchrun.run_follower()
    with open_session(VERB.name, request) as session:
        on_ray = session.experiment.workers.count > 1 and torchrun.world_size() == 1
        if not on_ray and session.experiment.workers.gpus and session.experiment.train.device == "cpu":
            session.log.info(
                "note: one worker trains in this process, which has no GPU: to use one, submit the job with "
                "--entrypoint-num-gpus 1"
            )
        stopped = training.train_on_ray(session) if on_ray else training.train_here(session)
        return training.finish_training(session, stopped)


if __name__ == "__main__":
    main(VERB, train)
