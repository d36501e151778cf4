"""One run's folder in storage that outlives the machine: STORAGE/NAME in any file system that pyarrow opens."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from classifier.storage.uri import open_filesystem

# A folder with one of these is whole once that file is there, which is written last.
MANIFESTS = ("manifest.json", "bundle.json")


# Renaming is atomic here; elsewhere a file is there only once it was written to its end.
RENAMING_FILE_SYSTEMS = ("local", "hdfs")


PART_SUFFIX = ".part"


PREVIOUS_BUNDLE = ".bundle.older"


@dataclass(frozen=True)
class Storage:
    """One run's folder in storage. Names of files are relative, with slashes."""

    system: fs.FileSystem
    root: str
    uri: str = ""
    """As it was given; root holds the run's name too."""

    @classmethod
    def from_uri(cls, uri: str, name: str) -> "Storage":
        """STORAGE/NAME. ConfigError if pyarrow cannot open it, or if it holds a secret."""
        uri = uri if "://" in uri else str(Path(uri).resolve())
        system, root = open_filesystem(uri, "--storage")
        return cls(system, f"{root.rstrip('/')}/{name}", uri)

    def subfolder(self, name: str) -> "Storage":
        """A folder of it, as a storage of its own."""
        return dataclasses.replace(self, root=f"{self.root}/{name}")

    def files(self, folder: str = "") -> dict[str, int]:
        """The files below a folder, with their bytes; none of those that are being written."""
        place = f"{self.root}/{folder}".rstrip("/")
        found = self.system.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
        there = [info for info in found if info.type == fs.FileType.File and not info.path.endswith(PART_SUFFIX)]
        return {info.path.removeprefix(f"{self.root}/"): info.size for info in there}

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            with self.system.open_input_stream(f"{self.root}/{name}") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file; a reader sees the old content or the new."""
        place = f"{self.root}/{name}"
        part = f"{place}{PART_SUFFIX}" if self.system.type_name in RENAMING_FILE_SYSTEMS else place
        self.system.create_dir(place.rpartition("/")[0], recursive=True)
        with path.open("rb") as file, self.system.open_output_stream(part) as stream:
            while block := file.read(1 << 22):
                stream.write(block)
        if part != place:
            self.system.move(part, place)

    def download(self, name: str, path: Path) -> None:
        """Copy a file from the storage to a local path, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with self.system.open_input_stream(f"{self.root}/{name}") as stream, part.open("wb") as file:
            while block := stream.read(1 << 22):
                file.write(block)
        os.replace(part, path)

    def remove(self, folder: str) -> None:
        """Remove a file or a folder; its document first: what is left by a death in between counts for nothing."""
        if self.system.get_file_info(f"{self.root}/{folder}".rstrip("/")).type == fs.FileType.File:
            self.system.delete_file(f"{self.root}/{folder}")
            return
        for name in sorted(self.files(folder), key=lambda name: not name.endswith(MANIFESTS)):
            self.system.delete_file(f"{self.root}/{name}")
        with contextlib.suppress(FileNotFoundError):
            self.system.delete_dir(f"{self.root}/{folder}".rstrip("/"))

    def newest_step(self) -> int:
        """The step of the newest whole checkpoint there; -1 where there is none."""
        return max((step_of(name) for name in self.files("checkpoints") if name.endswith(MANIFESTS)), default=-1)

    def download_folder(self, folder: Path, *, include: Callable[[str], bool] = lambda _: True) -> None:
        """Copy the run's files into a local folder, over those that are there; documents last.

        A bundle or checkpoint that a death left without its document is as good as absent.
        """
        names = self.files()
        whole = {_folder_of(name) for name in names if name.endswith(MANIFESTS)}
        there = [name for name in names if _folder_of(name) in whole or not _has_document(_folder_of(name))]
        for name in sorted(filter(include, there), key=lambda name: name.endswith(MANIFESTS)):
            self.download(name, folder / name)


def _folder_of(name: str) -> str:
    """The folder that a file lies in."""
    return name.rpartition("/")[0]


def _has_document(place: str) -> bool:
    """Whether the folder is a bundle or a checkpoint, whole once its document is there."""
    last = place.rpartition("/")[2]
    return last in ("bundle", PREVIOUS_BUNDLE) or last.startswith("step-")


def step_of(name: str) -> int:
    """The step of a checkpoint's folder, or of a file in it."""
    return int(name.rpartition("step-")[2].partition("/")[0])
