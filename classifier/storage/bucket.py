"""A run's folder in storage that outlives the machine: STORAGE/NAME in any file system that pyarrow can open."""

import contextlib
import dataclasses
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from classifier.storage.uri import open_filesystem

# Written last: a checkpoint or bundle is complete once its manifest is there.
MANIFESTS = ("manifest.json", "bundle.json")
# Renaming is atomic in these; elsewhere a file appears only when it is closed.
RENAMING_FILE_SYSTEMS = ("local", "hdfs")
PART_SUFFIX = ".part"
PREVIOUS_BUNDLE = ".bundle.older"
CLAIMS = ".claims"


@dataclass(frozen=True)
class Storage:
    """One run's folder in storage. File names are relative paths with slashes."""

    system: fs.FileSystem
    root: str
    uri: str = ""
    """The URI as given; `root` also contains the run's name."""

    @classmethod
    def from_uri(cls, uri: str, name: str) -> "Storage":
        """Open STORAGE/NAME. ConfigError if pyarrow cannot open it, or if the URI contains credentials."""
        uri = uri if "://" in uri else str(Path(uri).resolve())
        system, root = open_filesystem(uri, "--storage")
        return cls(system, f"{root.rstrip('/')}/{name}", uri)

    def subfolder(self, name: str) -> "Storage":
        """Return a subfolder as a storage of its own."""
        return dataclasses.replace(self, root=f"{self.root}/{name}")

    @classmethod
    def list_runs(cls, uri: str) -> list[str]:
        """Return the names of the runs in STORAGE. Errors as from_uri; OSError if it cannot be read."""
        storage = cls.from_uri(uri, "")
        if storage.system.get_file_info(storage.root.rstrip("/")).type == fs.FileType.File:
            raise NotADirectoryError(f"{uri} is a file")
        infos = storage.system.get_file_info(fs.FileSelector(storage.root, allow_not_found=True))
        return [info.base_name for info in infos]

    def claim(self) -> bool:
        """Take the folder for a new run, unless it has files or another machine claims it at the same time.

        Storage creates no file exclusively, so each machine writes one of its own and then looks for others: of two at
        once, at most one is alone. A claim that fails leaves no file behind.
        """
        if self.files():
            return False
        claim = f"{CLAIMS}/{uuid.uuid4().hex}"
        self.system.create_dir(f"{self.root}/{CLAIMS}", recursive=True)
        with self.system.open_output_stream(f"{self.root}/{claim}") as stream:
            stream.write(b"claimed")
        if list(self.files()) == [claim]:
            return True
        self.remove(claim)
        return False

    def files(self, folder: str = "") -> dict[str, int]:
        """Return the files below a folder, with their sizes in bytes; files that are being written are left out."""
        path = f"{self.root}/{folder}".rstrip("/")
        selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
        while True:
            try:
                infos = self.system.get_file_info(selector)
                break
            except FileNotFoundError:  # another machine removed a folder while it was listed
                continue
        files = [info for info in infos if info.type == fs.FileType.File and not info.path.endswith(PART_SUFFIX)]
        return {info.path.removeprefix(f"{self.root}/"): info.size for info in files}

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        try:
            with self.system.open_input_stream(f"{self.root}/{name}") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def upload(self, path: Path, name: str) -> None:
        """Upload a local file atomically: a reader sees the old content or the new."""
        target = f"{self.root}/{name}"
        part = f"{target}{PART_SUFFIX}" if self.system.type_name in RENAMING_FILE_SYSTEMS else target
        self.system.create_dir(target.rpartition("/")[0], recursive=True)
        with path.open("rb") as file, self.system.open_output_stream(part) as stream:
            while block := file.read(1 << 22):
                stream.write(block)
        if part != target:
            self.system.move(part, target)

    def download(self, name: str, path: Path) -> None:
        """Download a file to a local path atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with self.system.open_input_stream(f"{self.root}/{name}") as stream, part.open("wb") as file:
            while block := stream.read(1 << 22):
                file.write(block)
        os.replace(part, path)

    def remove(self, folder: str) -> None:
        """Remove a file or a folder, manifests first: after a crash, what is left does not count as complete."""
        if self.system.get_file_info(f"{self.root}/{folder}".rstrip("/")).type == fs.FileType.File:
            self.system.delete_file(f"{self.root}/{folder}")
            return
        for name in sorted(self.files(folder), key=lambda name: not name.endswith(MANIFESTS)):
            self.system.delete_file(f"{self.root}/{name}")
        with contextlib.suppress(FileNotFoundError):
            self.system.delete_dir(f"{self.root}/{folder}".rstrip("/"))

    def newest_step(self) -> int:
        """Return the step of the newest complete checkpoint, or -1 if there is none."""
        return max((step_of(name) for name in self.files("checkpoints") if name.endswith(MANIFESTS)), default=-1)

    def download_folder(self, folder: Path, *, include: Callable[[str], bool] = lambda _: True) -> None:
        """Download the run's files into a local folder, replacing existing ones; manifests last.

        A bundle or checkpoint without its manifest is incomplete, after a crash, and is left out.
        """
        names = self.files()
        complete = {_folder_of(name) for name in names if name.endswith(MANIFESTS)}
        wanted = [name for name in names if _folder_of(name) in complete or not _has_manifest(_folder_of(name))]
        for name in sorted(filter(include, wanted), key=lambda name: name.endswith(MANIFESTS)):
            self.download(name, folder / name)


def step_of(name: str) -> int:
    """Return the step of a checkpoint's folder, or of a file in it; -1 if it is something else."""
    match = re.search(r"(?:^|/)step-([0-9]{8,16})(?:/|$)", name)
    return int(match[1]) if match else -1


def _folder_of(name: str) -> str:
    """Return the folder that a file is in."""
    return name.rpartition("/")[0]


def _has_manifest(folder: str) -> bool:
    """Return whether the folder is a bundle or a checkpoint, which is complete only with its manifest."""
    name = folder.rpartition("/")[2]
    return name in ("bundle", PREVIOUS_BUNDLE) or name.startswith("step-")
