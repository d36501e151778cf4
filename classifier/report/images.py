"""Images inside a page: shrunk, as data URIs, with a link to the full image where its file exists."""

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

import PIL.Image
from markupsafe import Markup

from classifier.data.decoding import decode
from classifier.report.page import Image

# Largest width and height in pixels of an image that links to its file, and of one that can only be enlarged.
THUMBNAIL_SIZE, ENLARGED_SIZE = 112, 240
MAX_PIXELS = 100_000_000


def embed_jpeg(jpeg: bytes, text: str, link: str = "") -> Image:
    """Return an image of these bytes. text: says what it shows, for who cannot see it. link: of the full image."""
    return Image(Markup(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"), text, link)


def embed_thumbnail(content: bytes | None, text: str, link: str = "") -> Image | None:
    """Return a shrunk image of the bytes of an image file; None if it cannot be read."""
    if content is None:
        return None
    size = THUMBNAIL_SIZE if link else ENLARGED_SIZE
    try:
        image = decode.open_image(content, max_pixels=MAX_PIXELS, min_side=size)
    except decode.DecodeError:
        return None
    image.thumbnail((size, size), PIL.Image.Resampling.BOX)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=80)
    return embed_jpeg(stream.getvalue(), text, link)


def link_to(file: Path, folder: Path) -> str:
    """Return the URL of a file relative to a page in `folder`, so that both can move together; "" if there is none."""
    if not file.is_file():
        return ""
    return quote(os.path.relpath(file.resolve(), folder.resolve()), errors="surrogateescape")


def find_image_file(data_path: str, image_id: str) -> Path:
    """Return where the image with this id would be: in the folder of the data set, or beside its manifest."""
    path = Path(data_path)
    return (path if path.is_dir() else path.parent) / image_id
