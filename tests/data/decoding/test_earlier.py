"""Only files whose pixels may have changed since an earlier version are decoded again."""

import pytest
from PIL import Image

from classifier.data.decoding.earlier import may_differ
from tests.data.decoding.profiles import cmyk_profile, rgb_profile
from tests.data.decoding.test_colours import RAMP, SRGB, with_sbit
from tests.data.decoding.test_decode import encoded
from tests.data.decoding.test_orientation import lying

FLAT = Image.new("RGB", (16, 16), (90, 140, 30))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(FLAT, "JPEG"), False),
        (encoded(FLAT, "JPEG", icc_profile=SRGB), False),
        (encoded(FLAT, "JPEG", icc_profile=rgb_profile()), True),
        (encoded(FLAT.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()), True),
        (lying("JPEG", by="EXIF"), False),
        (lying("JPEG", by="XMP"), True),
        (encoded(FLAT), False),
        (encoded(FLAT, icc_profile=rgb_profile()), True),
        (with_sbit(encoded(Image.fromarray(RAMP)), 12), True),
        (encoded(FLAT, "WEBP"), False),
        (encoded(FLAT, "WEBP", icc_profile=rgb_profile()), True),
        (encoded(FLAT, "GIF"), False),
        (encoded(FLAT, "BMP"), False),
        (encoded(FLAT, "PPM"), False),
        (encoded(FLAT, "TIFF"), True),
        (b"", True),
    ],
)
def test_files_that_may_differ(content: bytes, expected: bool) -> None:
    assert may_differ(content) is expected
