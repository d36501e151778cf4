"""Draw what the model sees: python jobs/show.py --data.path photos/

A labelled grid of training images, each as it is and as augmentation makes it, in grid.png.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

# This folder gives way to the repository's root: the packages are found uninstalled, and no verb shadows a library.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from jobs.cli.command import main  # noqa: E402
from jobs.cli.verb import BeginningOptions, Request, Verb  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class ShowOptions(BeginningOptions):
    images: int = 8
    """How many training images to draw."""
    views: int = 6
    """How many augmented views of each."""


VERB = Verb(
    name="show",
    summary="Draw a labelled grid of what the model sees, before and after augmentation.",
    examples=("show.py", "show.py --data.path photos/ --augment.policy photos --augment.rotate 20"),
    options=ShowOptions,
    slices=("data", "augment"),
)


def show(request: Request) -> None:
    """Load, augment a few images as the first epochs of a training would, and draw them."""
    import torch

    from classifier import data
    from classifier.augment import geometry, policy
    from classifier.report import png
    from classifier.runtime import counter_rng
    from jobs.cli import console
    from jobs.steps import session

    options = request.options
    experiment = request.experiment()
    with session.open_run(VERB.name, options, subject=experiment.data.path) as (run, journal):
        dataset = data.load(experiment.data)
        config = policy.resolve(experiment.augment, kind=dataset.kind, channels=dataset.channels, size=dataset.size)
        # One of each class in turn, as far as the picture goes.
        ranks_N = torch.zeros(len(dataset.train), dtype=torch.int64)
        for k in range(len(dataset.class_names)):
            mine_N = dataset.train.labels_N == k
            ranks_N[mine_N] = torch.arange(int(mine_N.sum()))
        chosen_N = torch.argsort(ranks_N, stable=True)[: options.images]
        images_NCHW, labels_N = dataset.train.images_NCHW[chosen_N], dataset.train.labels_N[chosen_N]
        epochs = (counter_rng.key(experiment.seed, epoch) for epoch in range(options.views))
        views = [
            geometry.to_float(policy.augment(images_NCHW, config, key=key, positions_N=chosen_N)) for key in epochs
        ]
        rows = [
            (dataset.class_names[int(label)], [image_CHW, *(view_NCHW[i] for view_NCHW in views)])
            for i, (label, image_CHW) in enumerate(zip(labels_N, images_NCHW, strict=True))
        ]
        png.grid_png(rows, run.folder / "grid.png")
        for line in console.describe_data(dataset):
            journal.info(line)
        settings = dataclasses.replace(experiment, augment=config).as_dict()
        run.write_result(VERB.name, "finished", config=settings, dataset=dataset.summary())
        journal.info(f"before and after augmentation ({config.policy}): {run.folder / 'grid.png'}")
        journal.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, show)
