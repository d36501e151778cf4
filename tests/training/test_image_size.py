"""The size of the training images grows in stages of equally many epochs."""

import pytest

from classifier.config.sections import ScheduleConfig
from classifier.training import image_size


@pytest.mark.parametrize(
    ("size", "size_from", "size_to", "epochs", "expected"),
    [
        (224, 1.0, 1.0, 3, [224, 224, 224]),
        (250, 1.0, 1.0, 1, [250]),  # no multiple of 32
        (224, 4 / 7, 1.0, 8, [128, 128, 160, 160, 192, 192, 224, 224]),
        (256, 0.625, 0.75, 4, [160, 160, 192, 192]),
        (224, 160 / 224, 160 / 224, 2, [160, 160]),
        (32, 0.5, 1.0, 5, [16, 16, 20, 28, 32]),
        (8, 0.1, 1.0, 2, [4, 8]),
        (224, 0.5, 1.0, 1, [224]),
        (130, 0.1, 0.99, 2, [32, 128]),
    ],
)
def test_size_by_epoch(size, size_from, size_to, epochs, expected):
    config = ScheduleConfig(size_from=size_from, size_to=size_to)
    sizes = [image_size.size_at(config, size=size, epoch=epoch, epochs=epochs) for epoch in range(epochs)]
    assert sizes == expected
    listed = image_size.list_sizes(config, size=size, epochs=epochs)
    assert {each: first for each, (first, _) in listed.items()} == {each: sizes.index(each) for each in sizes}
    assert {each: share for each, (_, share) in listed.items()} == pytest.approx(
        {each: sizes.count(each) / epochs for each in sizes}
    )


def test_epochs_beyond_the_last_have_its_size():
    assert image_size.size_at(ScheduleConfig(size_from=0.5), size=224, epoch=99, epochs=4) == 224
