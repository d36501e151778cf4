"""Images are decoded to the same pixels with and without torch, within a grey value."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from classifier.bundle.exported import PIXEL_TOLERANCE
from classifier.data.decoding import decode
from classifier.data.decoding.image_spec import ImageSpec
from classifier.export.sample import draw_files


def draw_jpegs() -> list[bytes]:
    """Colour and grey JPEGs of odd sizes, with and without subsampled colours."""
    rng = np.random.default_rng(0)
    contents = []
    for height, width, mode, subsampling in ((37, 53, "RGB", 2), (301, 199, "RGB", 0), (97, 61, "L", -1)):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=95, subsampling=subsampling)
        contents.append(buffer.getvalue())
    return contents


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [24, 65])
def test_pixels_without_torch(fit: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXIF orientation, CMYK, alpha, 16 bits (draw_files) and odd sizes."""
    for channels in (1, 3):
        spec = ImageSpec(size, channels, fit, 10**7)
        for content in (*draw_files(), *draw_jpegs()):
            expected = decode.decode_bytes(content, spec).astype(np.int16)
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, "torch", None)
                found = decode.decode_bytes(content, spec)
            assert np.abs(found - expected).max() <= PIXEL_TOLERANCE
            assert found.shape == spec.shape
