"""Names and files of many images in little memory: a few dozen bytes each, where objects take hundreds.

Both are sequences that create their items on access.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from classifier.data.readers.file_bytes import File

FileFactory = Callable[[str, int, int], File]
"""Creates a file from its name and two numbers, within its container."""


class CompactStrings(Sequence[str]):
    """N strings stored as one text. `add` appends."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        for string in strings:
            self.add(string)

    def add(self, string: str) -> None:
        self._text += string.encode("utf-8", "surrogateescape")  # file names need not be valid text
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "CompactStrings": ...
    def __getitem__(self, index: int | slice) -> "str | CompactStrings":
        if isinstance(index, slice):
            return CompactStrings(self[n] for n in range(*index.indices(len(self))))
        index = range(len(self))[index]
        return self._text[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType] - mutable

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self[:3]!r} of {len(self)})" if len(self) > 3 else f"{name}({[*self]})"


class CompactFiles(Sequence[File]):
    """N files, most of them in a few containers: an archive, a table, or the local disk."""

    def __init__(self, files: Iterable[File] = ()) -> None:
        self._factories: list[FileFactory] = []
        self._container_indices: dict[object, int] = {}
        self._containers, self._first_numbers, self._second_numbers = array("i"), array("q"), array("q")
        self._names = CompactStrings()
        for file in files:
            self.add(file)

    def add(self, file: File) -> None:
        packed = (Path, _create_path, str(file), 0, 0) if isinstance(file, Path) else file.pack()
        container, factory, name, first, second = packed
        if container not in self._container_indices:
            self._container_indices[container] = len(self._factories)
            self._factories.append(factory)
        self._containers.append(self._container_indices[container])
        self._first_numbers.append(first)
        self._second_numbers.append(second)
        self._names.add(name)

    def __len__(self) -> int:
        return len(self._containers)

    @overload
    def __getitem__(self, index: int) -> File: ...
    @overload
    def __getitem__(self, index: slice) -> "CompactFiles": ...
    def __getitem__(self, index: int | slice) -> "File | CompactFiles":
        if isinstance(index, slice):
            return CompactFiles(self[n] for n in range(*index.indices(len(self))))
        factory = self._factories[self._containers[index]]
        return factory(self._names[index], self._first_numbers[index], self._second_numbers[index])


def _create_path(name: str, _: int, __: int) -> Path:
    return Path(name)


def select_strings(strings: Sequence[str], indices: Iterable[int]) -> Sequence[str]:
    """Return the strings at these indices, in this order; compact ones stay compact."""
    chosen = (strings[n] for n in indices)
    return CompactStrings(chosen) if isinstance(strings, CompactStrings) else tuple(chosen)


def pack_digests(digests: Iterable[bytes]) -> np.ndarray:
    """Pack digests of 16 bytes, or empty ones, into an array of V16."""
    packed = bytearray()
    for digest in digests:
        packed += digest or bytes(16)
    return np.frombuffer(packed, "V16")
