"""Images inside a page: shrunk, as data URIs, with a link to the full image where its file exists."""

import base64
import os
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from markupsafe import Markup

from classifier.data.decoding.bounded import BoundedDecoder
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.tasks import Task
from classifier.report.page import Image

# Largest width and height in pixels of an image that links to its file, and of one that can only be enlarged.
THUMBNAIL_SIZE, ENLARGED_SIZE = 112, 240


def embed_jpeg(jpeg: bytes, text: str, link: str = "") -> Image:
    """Return an image of these bytes. text: says what it shows, for who cannot see it. link: of the full image."""
    return Image(Markup(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"), text, link)


class Thumbnails:
    """Shrinks images within the limits of an image's pixels and seconds. A context, which ends its processes."""

    def __init__(self, max_pixels: int, max_seconds: float) -> None:
        sizes = (THUMBNAIL_SIZE, ENLARGED_SIZE)
        self._decoders = {size: BoundedDecoder(Task.thumbnail(size, max_pixels), max_seconds) for size in sizes}

    def __enter__(self) -> "Thumbnails":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for decoder in self._decoders.values():
            decoder.close()

    def embed(self, content: bytes | None, text: str, link: str = "") -> Image | None:
        """Return a shrunk image of the bytes of an image file; None if it cannot be read."""
        if content is None:
            return None
        try:
            jpeg = self._decoders[THUMBNAIL_SIZE if link else ENLARGED_SIZE].decode(content)
        except DecodeError:
            return None
        return embed_jpeg(jpeg, text, link)


def link_to(file: Path, folder: Path) -> str:
    """Return the URL of a file relative to a page in `folder`, so that both can move together; "" if there is none."""
    if not file.is_file():
        return ""
    return quote(os.path.relpath(file.resolve(), folder.resolve()), errors="surrogateescape")


def find_image_file(data_path: str, image_id: str) -> Path:
    """Return where the image with this id would be: in the folder of the data set, or beside its manifest."""
    path = Path(data_path)
    return (path if path.is_dir() else path.parent) / image_id
