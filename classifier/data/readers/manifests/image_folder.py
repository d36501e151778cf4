"""A manifest's folder, in which its images are found."""

import os
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from classifier.data.readers.tree import leads_outside
from classifier.errors import DataError
from classifier.text import unescape_surrogates


class ImageFolder:
    """A manifest's folder, in which its images are found."""

    def __init__(self, manifest: Path, allows_outside: bool) -> None:
        self.path, self.allows_outside = manifest.parent, allows_outside
        self._normal = os.path.normpath(self.path)
        self._outside: dict[Path, bool] = {}
        """Folder -> whether it is outside."""

    def find(self, where: str, name: str) -> Path | None:
        """Return the image of this name, also if it is written as on Windows or a Mac; None if there is none.

        DataError if it is outside.
        """
        for spelling in _spell_path(name):
            path = self.path / spelling
            if not self.allows_outside and self._leads_outside(path):
                raise DataError(
                    f"{where}: {name} leads out of {self.path}: if you trust this manifest, set --data.outside true"
                )
            if os.path.isfile(path):  # unlike Path.is_file, no error for impossible names
                return path
        return None

    def find_existing(self, where: str, name: str) -> Path:
        """`find`, but DataError if there is none."""
        if path := self.find(where, name):
            return path
        what = "is a folder" if os.path.isdir(self.path / name) else "does not exist"
        raise DataError(f"{where}: {name} {what}: correct the path (it is relative to {self.path}), or remove the line")

    def id_of(self, path: Path) -> str:
        """Return the normalized path, relative to the folder if it is inside."""
        normal = os.path.normpath(path)
        inside = (self._normal == "." and not os.path.isabs(normal)) or normal.startswith(
            os.path.join(self._normal, "")
        )
        return Path(os.path.relpath(normal, self._normal) if inside else normal).as_posix()

    def _leads_outside(self, path: Path) -> bool:
        """tree.leads_outside, which asks the disk for every link on the way, once for all images of a folder."""
        above = path.parent
        if above not in self._outside:
            self._outside[above] = leads_outside(above, self.path)
        is_last_in_doubt = path.name == ".." or os.path.islink(path)
        return leads_outside(path, self.path) if is_last_in_doubt else self._outside[above]


def _spell_path(name: str) -> Iterator[str]:
    """Yield the ways in which this path may be meant: exactly, then as other systems and programs write it."""
    yield name
    if name.startswith("file://"):
        yield urllib.parse.unquote(urllib.parse.urlsplit(name).path)
    if (unescaped := unescape_surrogates(name)) != name:
        yield unescaped
    plain = name.strip()
    for spelling in (plain, plain.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            if (other := unicodedata.normalize(form, spelling)) != name:
                yield other
