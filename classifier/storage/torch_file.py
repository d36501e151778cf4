"""Files that torch.save wrote: read within bounds and without executing code.

A file that comes from elsewhere may be anything: its pickle may refer to itself, or name one list a billion times; its
archive may expand to a thousand times its size; its tensors may be larger than what is stored of them.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

# torch.save stores, it does not compress.
_MAX_EXPANSION = 2
# How torch tells its format from the one before 1.6. Other parsers look at a file's end, which may say otherwise.
_ZIP_START = b"PK\x03\x04"
# The pickles of a file in torch's format before 1.6: magic number, version, system, weights, keys.
_MAX_PICKLES = 5
# torch's weights_only accepts it, but bytearray(10**12) in a pickle of 30 bytes takes that much memory.
_REFUSED_GLOBALS = ("builtins bytearray", "__builtin__ bytearray")


def load_torch(file: Path) -> Any:
    """Return the content of a file: tensors, on the CPU, and plain data. It may refer to itself.

    UnpicklingError if it holds more; anything else if it is corrupted (KeyError, AssertionError, struct.error, ...).
    """
    import torch

    _check_pickles(file)
    with warnings.catch_warnings():  # about sparse tensors
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def check_size(content: Any, file: Path) -> None:
    """ValueError if what a file held is larger than the file: it refers to itself or to one thing over and over, or a
    tensor has more elements than are stored of it."""
    import torch

    left, pending = _MAX_EXPANSION * file.stat().st_size, [content]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple | set):
            pending += value
        left -= 1 + (value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0)
        if left < len(pending):
            raise ValueError("it expands to many times its size")


def _check_pickles(file: Path) -> None:
    """Refuse, before anything is unpickled, what takes more memory than the file. UnpicklingError, or what the parsers
    raise."""
    with file.open("rb") as stream:
        is_zip = stream.read(len(_ZIP_START)) == _ZIP_START
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _MAX_EXPANSION * file.stat().st_size:
                raise ValueError("it expands to many times its size")
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # torch reads no other
                    raise ValueError("it is compressed in an unknown way")
                if member.filename.rpartition("/")[2] == "data.pkl":
                    with archive.open(member) as stream:  # reads no more than asked for, whatever the archive states
                        _check_pickle(stream.read(member.file_size))
        return
    with file.open("rb") as stream:
        for _ in range(_MAX_PICKLES):
            if not stream.peek(1):
                return
            _check_pickle(stream)


def _check_pickle(content: bytes | io.BufferedReader) -> None:
    """content: bytes, or a file at the start of a pickle, which is read to its end."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL" and argument in _REFUSED_GLOBALS:
            raise pickle.UnpicklingError(f"it contains {argument}")
