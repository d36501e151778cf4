"""The sample in an export: images with the answers that they had where it was made, to compare with elsewhere."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from classifier.bundle.engine import Engine
from classifier.data.columns.schema import ColumnSchema
from classifier.data.decoding import decode
from classifier.data.decoding.image_spec import ImageSpec

# Images of the user's own, as pixels; the files below are drawn, so that they have whatever a decoder may trip over.
IMAGES = 4
_ORIENTATION, _ROTATED = 0x0112, 6
_VALUES: Mapping[str, tuple[Any, Any]] = {
    "number": (3.25, "-1e3"),
    "category": ("red", " Grün "),
    "date": ("2024-02-29", "1969-12-31T23:59:59"),
    "text": ("A red door, 2 keys.", "Größe: 山 (x²)"),
}


def make_sample(
    images_NCHW: np.ndarray,
    engine: Engine,
    spec: ImageSpec,
    columns_NF: np.ndarray | None = None,
    schema: ColumnSchema | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays of the sample: IMAGES images and answers, and files with the pixels that they decode to.

    columns_NF and schema: of a model that takes columns, whose sample also has rows and the numbers that they become.
    """
    rows = np.linspace(0, len(images_NCHW) - 1, min(IMAGES, len(images_NCHW))).astype(int)
    images_NCHW = np.ascontiguousarray(images_NCHW[rows])
    arrays = {"images": images_NCHW}
    if columns_NF is not None and schema is not None:
        columns_NF = arrays["columns"] = np.ascontiguousarray(columns_NF[rows])
        values = draw_rows(schema)
        arrays["rows"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
        arrays["encoded_rows"] = schema.encode(values)
    arrays["probabilities"] = engine.predict(images_NCHW, columns_NF).probabilities_NK
    for number, content in enumerate(draw_files()):
        arrays[f"encoded/{number}"] = np.frombuffer(content, np.uint8)
        arrays[f"decoded/{number}"] = decode.decode_bytes(content, spec)
    return arrays


def draw_rows(schema: ColumnSchema) -> list[dict[str, Any]]:
    """Return rows of columns, plain data for JSON: usual values, unusual ones, and none."""
    return [{column.name: _VALUES[column.kind][n] for column in schema.columns} for n in range(2)] + [{}]


def draw_files() -> list[bytes]:
    """Return image files: a large JPEG on its side, a CMYK JPEG, a PNG with alpha and one of 16 bits, of odd sizes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:301, 0:403] / 300
    waves = [np.sin(9 * x + 4 * y * k) + np.cos(7 * y - k) for k in range(4)]
    pixels = (np.stack(waves, 2) * 55 + 128 + rng.normal(0, 4, (301, 403, 4))).clip(0, 255).astype(np.uint8)
    upright = Image.Exif()
    upright[_ORIENTATION] = _ROTATED
    grey = (pixels[:47, :61, 0].astype(np.uint16) << 8) + pixels[:47, :61, 1]
    files = (
        (Image.fromarray(pixels[..., :3]), {"format": "JPEG", "exif": upright}),
        (Image.fromarray(pixels[:97, :83], "CMYK"), {"format": "JPEG"}),
        (Image.fromarray(pixels[:75, :51], "RGBA"), {"format": "PNG"}),
        (Image.fromarray(grey), {"format": "PNG"}),
    )
    contents = []
    for image, options in files:
        buffer = io.BytesIO()
        image.save(buffer, **options)
        contents.append(buffer.getvalue())
    return contents
