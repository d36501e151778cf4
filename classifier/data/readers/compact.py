"""Names and files of many pictures in little memory: a few dozen bytes each, where objects take hundreds.

Both are sequences, which make their items when they are asked for.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from classifier.data.readers.tree import File

Make = Callable[[str, int, int], File]
"""A file of its name and two numbers, within its container."""


class Names(Sequence[str]):
    """N strings as one text. `add` makes it longer."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text, self._ends = bytearray(), array("q", [0])
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._text += name.encode("utf-8", "surrogateescape")  # names of files need not be text
        self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return Names(self[n] for n in range(*index.indices(len(self))))
        index = range(len(self))[index]
        return self._text[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType] - it can grow

    def __repr__(self) -> str:
        return f"Names({self[:3]!r} of {len(self)})" if len(self) > 3 else f"Names({[*self]})"


class Files(Sequence[File]):
    """N files, most of them inside of a few containers: an archive, a table, or the machine's disk."""

    def __init__(self, files: Iterable[File] = ()) -> None:
        self._homes: list[Make] = []
        self._number: dict[object, int] = {}
        self._home, self._first, self._second = array("i"), array("q"), array("q")
        self._names = Names()
        for file in files:
            self.add(file)

    def add(self, file: File) -> None:
        packed = (Path, _path, str(file), 0, 0) if isinstance(file, Path) else file.packed()
        key, make, name, first, second = packed
        if key not in self._number:
            self._number[key] = len(self._homes)
            self._homes.append(make)
        self._home.append(self._number[key])
        self._first.append(first)
        self._second.append(second)
        self._names.add(name)

    def __len__(self) -> int:
        return len(self._home)

    @overload
    def __getitem__(self, index: int) -> File: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: int | slice) -> "File | Files":
        if isinstance(index, slice):
            return Files(self[n] for n in range(*index.indices(len(self))))
        return self._homes[self._home[index]](self._names[index], self._first[index], self._second[index])


def _path(name: str, _: int, __: int) -> Path:
    return Path(name)


def chosen(names: Sequence[str], index: Iterable[int]) -> Sequence[str]:
    """Some of the names, in this order."""
    return Names(names[n] for n in index) if isinstance(names, Names) else tuple(names[n] for n in index)


def digests_of(contents: Iterable[bytes]) -> np.ndarray:
    """Digests of 16 bytes, or empty ones, as an array of V16."""
    packed = bytearray()
    for content in contents:
        packed += content or bytes(16)
    return np.frombuffer(packed, "V16")
