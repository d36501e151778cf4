"""Train a classifier: python jobs/train.py --data.path photos/

One worker trains in this process. With --workers.count N, N Ray workers train together; under torchrun, the processes
that it launched. The run folder holds the best model so far (bundle/), history.jsonl, checkpoints to resume from and,
at the end, result.json.
"""

import sys
from pathlib import Path

# Import from the repository root instead of this folder: works uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import EXIT_DONE, SECTIONS, Request, TrainingOptions, Verb  # noqa: E402

VERB = Verb(
    name="train",
    summary="Train an image classifier and save it as a bundle.",
    examples=(
        "train.py                                    # the built-in digits, in seconds",
        "train.py --data.path photos/                # a folder with one subfolder per class",
        "train.py --recipe fashion-quick --data.path /usr/share/datasets/fashion-mnist",
        "train.py --data.path photos/ --workers.count 2 --train.epochs 30",
        "train.py --resume runs/NAME",
    ),
    options=TrainingOptions,
    sections=SECTIONS,
)


def train(request: Request) -> int:
    """Load the data, train, save the bundle and the result."""
    from jobs.launch import torchrun
    from jobs.steps import training
    from jobs.steps.session import open_session

    if request.options.dry_run:
        from jobs.steps.dry_run import dry_run

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
