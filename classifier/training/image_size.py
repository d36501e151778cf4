"""The image size of each epoch: progressive resizing.

Small images first, then larger ones, in stages of equally many epochs: M. Tan, Q. Le, "EfficientNetV2", 2021. A network
may also do better if it is trained on smaller images than it is tested on, since random crops enlarge objects in
training: H. Touvron et al., "Fixing the train-test resolution discrepancy", 2019.
"""

import itertools

from classifier.config.sections import ScheduleConfig

STAGES = 4
# Sizes are multiples of so many pixels, as networks halve their maps: small images, and those from 128 pixels on.
_SMALL_STEP, _LARGE_STEP, _MIN_LARGE_SIZE = 4, 32, 128


def size_at(config: ScheduleConfig, *, size: int, epoch: int, epochs: int) -> int:
    """Return the size in pixels of the training images in an epoch, from 0 on. size: data.size, never exceeded."""
    stages = min(STAGES, epochs)
    return _size_of(config, size, min(epoch * stages // epochs, stages - 1), stages)


def list_sizes(config: ScheduleConfig, *, size: int, epochs: int) -> dict[int, tuple[int, float]]:
    """Return every size of a training, with the first epoch that has it and its share of the epochs."""
    stages, found = min(STAGES, epochs), {}
    starts = [-(-stage * epochs // stages) for stage in range(stages + 1)]
    for stage, (start, end) in enumerate(itertools.pairwise(starts)):
        first, share = found.get(stage_size := _size_of(config, size, stage, stages), (start, 0.0))
        found[stage_size] = (first, share + (end - start) / epochs)
    return found


def _size_of(config: ScheduleConfig, size: int, stage: int, stages: int) -> int:
    share = stage / (stages - 1) if stages > 1 else 1.0
    fraction = config.size_from + (config.size_to - config.size_from) * share
    if fraction == 1:
        return size
    step = _LARGE_STEP if size >= _MIN_LARGE_SIZE else _SMALL_STEP
    return min(size, max(step, step * round(fraction * size / step)))
