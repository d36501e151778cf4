"""Show what the model sees: python jobs/show.py photos/

Draws a labelled grid of training images before and after augmentation, grid.png.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from .cli.command import main
from .cli.verb import ExperimentOptions, Request, Verb


@dataclass(frozen=True, kw_only=True)
class ShowOptions(ExperimentOptions):
    images: int = 8
    """Number of training images to draw."""
    views: int = 6
    """Number of augmented views per image."""


VERB = Verb(
    name="show",
    examples=("", "photos/ --augment.policy photos --augment.rotate 20"),
    options=ShowOptions,
    sections=("data", "augment"),
    unused=("data.batch", "data.batch_auto", "data.balance", "data.window", "augment.views", "augment.test_flip"),
    common=("data.size", "augment.policy", "augment.flip", "augment.rotate", "augment.crop", "seed"),
)


def show(request: Request) -> None:
    """Augment a few images as the first epochs of a training would, and draw them."""
    import torch

    from classifier import data
    from classifier.augment import geometry, policy
    from classifier.config.auto_recipe import choose_recipe
    from classifier.data.facts import measure_facts
    from classifier.data.labels.label_sets import describe_label, find_rarest
    from classifier.report import png
    from classifier.runtime import counter_rng
    from classifier.training.progress import describe_data

    from .steps.output_run import open_run

    options = request.options
    experiment = request.experiment()
    if request.is_auto:  # the size does not depend on what a training would measure
        experiment = request.experiment(choose_recipe(measure_facts(experiment.data), request.given).experiment)
    with open_run(options, experiment.data.path) as (run, log):
        dataset = data.load(experiment.data)
        config = policy.resolve(experiment.augment, kind=dataset.kind, channels=dataset.channels, size=dataset.size)
        label_sets_MK = None if dataset.label_sets_MK is None else dataset.label_sets_MK.numpy()
        rarest_N = find_rarest(dataset.train.labels_N.numpy(), len(dataset.class_names), label_sets_MK)
        # One image of each class in turn, until there are options.images.
        ranks_N = torch.zeros(len(dataset.train), dtype=torch.int64)
        for k in range(len(dataset.class_names) + 1):  # the last: of none
            of_class_N = torch.from_numpy(rarest_N == k)
            ranks_N[of_class_N] = torch.arange(int(of_class_N.sum()))
        selected_N = torch.argsort(ranks_N, stable=True)[: options.images]
        images_NCHW, labels_N = dataset.train.training_images[selected_N], dataset.train.labels_N[selected_N]
        epochs = (counter_rng.key(experiment.seed, epoch) for epoch in range(options.views))
        views = [
            geometry.to_float(policy.augment(images_NCHW, config, key=key, positions_N=selected_N, size=dataset.size))
            for key in epochs
        ]
        rows = [
            (
                describe_label(label, dataset.class_names, label_sets_MK),
                [images_NCHW[i], *(one_NCHW[i] for one_NCHW in views)],
            )
            for i, label in enumerate(labels_N.tolist())
        ]
        png.draw_image_grid(rows, run.folder / "grid.png")
        for line in describe_data(dataset):
            log.info(line)
        settings = dataclasses.replace(experiment, augment=config).as_dict()
        run.write_result(VERB.name, "finished", config=settings, dataset=dataset.summary())
        log.info(f"before and after augmentation ({config.policy}): {run.folder / 'grid.png'}")
        log.info(str(run.folder))


if __name__ == "__main__":
    main(VERB, show)
