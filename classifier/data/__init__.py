"""Data sets: `load` opens, decodes and splits one."""

from typing import TYPE_CHECKING

from classifier.config.sections import DataConfig

if TYPE_CHECKING:
    from classifier.data.columns.schema import ColumnSchema
    from classifier.data.dataset import Dataset
    from classifier.data.image_decoder import Progress
    from classifier.data.readers.source import Source


def load(config: DataConfig, progress: "Progress | None" = None, schema: "ColumnSchema | None" = None) -> "Dataset":
    """Load the data set at config.path: an existing path, else the name of a known data set (cifar10 or CIFAR-10).

    progress: from what is done, and how many times, makes a progress bar: a context, which gives the function to call
    with how many more are done. schema: of a model that takes columns beside the image, to encode them as it learned
    them; if None, it is learned from the training images. DataError, in one sentence, if the data set is missing, or
    cannot be trained and tested on.
    """
    # Not at the top: decoding processes import this package, and do without torch.
    from classifier.data.build import build_dataset
    from classifier.data.subset import limit_training_images
    from classifier.data.unlabelled.images import add_unlabelled

    dataset = build_dataset(open_source(config), config, progress, schema)
    if config.limit:
        dataset = limit_training_images(dataset, config.limit, config.split_seed)
    return dataset if config.unlabelled is None else add_unlabelled(dataset, config, progress)


def open_source(config: DataConfig) -> "Source":
    """Open what is at config.path, without decoding anything. DataError if there is nothing to learn from."""
    from classifier.data.readers import detect

    return detect.open_source(config)
