"""Train one classifier: python jobs/train.py --data.path photos/

One worker trains in this process. With --workers.count N, N Ray workers train together; under torchrun, the processes
that it launched. Either way the run folder holds the best model so far as a bundle, a journal, checkpoints to resume
from, and at the end result.json.
"""

import sys
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import EXIT_DONE, SLICES, ExperimentOptions, Request, Verb  # noqa: E402

VERB = Verb(
    name="train",
    summary="Train one image classifier and pack it as a bundle.",
    examples=(
        "train.py                                    # the embedded digits, in seconds",
        "train.py --data.path photos/                # a folder of class folders",
        "train.py --recipe fashion-quick --data.path /usr/share/datasets/fashion-mnist",
        "train.py --data.path photos/ --workers.count 2 --train.epochs 30",
        "train.py --resume runs/NAME",
    ),
    options=ExperimentOptions,
    slices=SLICES,
)


def train(request: Request) -> int:
    """Load, resolve, train, pack, and say how it went."""
    from jobs.launch import torchrun
    from jobs.steps import training
    from jobs.steps.session import open_session

    if request.options.dry_run:
        from jobs.steps.dry_run import rehearse

        rehearse(request)
        return EXIT_DONE
    if torchrun.world_size() > 1:
        request = torchrun.set_worker_count(request)
        if torchrun.is_follower():
            return torchrun.run_follower()
    with open_session(VERB.name, request) as session:
        on_ray = session.experiment.workers.count > 1 and torchrun.world_size() == 1
        if not on_ray and session.experiment.workers.gpus and session.experiment.train.device == "cpu":
            session.log.info(
                "note: one worker trains in this process, which has no GPU: as a job, submit it with "
                "--entrypoint-num-gpus 1"
            )
        stopped = training.train_on_ray(session) if on_ray else training.train_here(session)
        return training.finish_training(session, stopped)


if __name__ == "__main__":
    main(VERB, train)
