"""Arrays are scanned like files."""

import numpy as np
import pytest
from PIL import Image

from classifier.config.sections import DataConfig
from classifier.data.audit.scan import scan_images
from classifier.data.decoding.image_file import encode_png
from classifier.data.decoding.image_stats import compute_image_stats
from classifier.data.readers.source import Source

RANDOM = np.random.default_rng(0)


def smooth(count: int, channels: int, height: int, width: int) -> np.ndarray:
    coarse = RANDOM.integers(0, 256, (count, channels, 7, 7), dtype=np.uint8)
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in coarse.reshape(-1, 7, 7)
    ]
    return np.stack([np.asarray(plane) for plane in planes]).reshape(count, channels, height, width)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 100, 80), (1, 300, 280), (1, 2, 2)])
def test_arrays_are_scanned_like_files(shape: tuple[int, int, int]) -> None:
    images_NCHW = smooth(5, *shape)
    images_NCHW[4] = 9  # a single colour
    source = Source(
        name="arrays",
        class_names=("a",),
        ids=tuple(map(str, range(5))),
        labels_N=np.zeros(5, np.int64),
        splits_N=np.zeros(5, np.int8),
        images=images_NCHW,
    )
    ticks = []
    scan = scan_images(source, DataConfig(), ticks.append)
    assert sum(ticks) == 5
    assert len(set(scan.digests_N.tolist())) == 5
    for k in range(5):
        one = compute_image_stats(encode_png(images_NCHW[k]), max_pixels=10**8)
        assert scan.sizes_K2[k].tolist() == [one.width, one.height]
        assert np.abs(scan.thumbs_KHW[k].astype(int) - one.thumb).mean() < 2
        assert scan.sharpness_K[k] == pytest.approx(one.sharpness, rel=0.1, abs=1e-3)
