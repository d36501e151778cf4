"""Data sets: `load` finds, decodes and splits one."""

from typing import TYPE_CHECKING

from classifier.config.sections import DataConfig

if TYPE_CHECKING:
    from classifier.data.dataset import Dataset
    from classifier.data.image_decoder import Progress
    from classifier.data.readers.source import Source


def load(config: DataConfig, progress: "Progress | None" = None) -> "Dataset":
    """The data set at config.path: an existing path, else the name of a known one (cifar10 and CIFAR-10 alike).

    progress: makes a progress bar of what it does and how many times, used as a context; it gives what is called with
    how many more are done. DataError in one sentence if it is missing, or cannot be trained and tested on.
    """
    # Not at the top: a process that only decodes imports this package, and needs no torch.
    from classifier.data.build import assemble
    from classifier.data.subset import limit_training_images

    dataset = assemble(open_source(config), config, progress)
    return limit_training_images(dataset, config.limit, config.split_seed) if config.limit else dataset


def open_source(config: DataConfig) -> "Source":
    """What lies at config.path, before anything is decoded. DataError if there is nothing to learn from."""
    from classifier.data.readers import detect

    return detect.open_source(config)
