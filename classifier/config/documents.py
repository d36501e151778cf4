"""Documents: JSON files that may come from anyone, read in one way and checked against the types of their keys.

A schema is a TypedDict, whose keys have types and ranges as settings do (fields.py). Keys that it does not have stay as
they are: a later version may have written them.
"""

import functools
import json
import math
import types
import typing
from pathlib import Path
from typing import Annotated, Any, NotRequired, Required, TypeVar, Union

from classifier.config.fields import Range, validate
from classifier.errors import ConfigError, RunError, in_short
from classifier.storage.atomic import check_format_version
from classifier.text import show, unescape_all

T = TypeVar("T")
# A larger file is none of ours.
MAX_BYTES = 1_000_000_000
# Numbers above it have no exact floating-point value, and counts do not reach it.
MAX_COUNT = 2**53

Count = Annotated[int, Range(0, MAX_COUNT)]


def read_json(path: str | Path, schema: type[T], remedy: str = "restore the file", version: int | None = None) -> T:
    """Read a JSON document and check it. RunError names the file, the wrong key and what to do.

    version: the format version that it must have.
    """
    return parse_json(read_bytes(path, remedy), path, schema, remedy, version)


def read_bytes(path: str | Path, remedy: str = "restore the file") -> bytes:
    """Read a document's bytes. RunError if it is no ordinary file, cannot be read, or is implausibly large."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise RunError(f"{path} is no ordinary file: {remedy}")
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path} is too large for a document, {path.stat().st_size:,} bytes: {remedy}")
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): {remedy}") from None


def parse_json(
    content: bytes, where: object, schema: type[T], remedy: str = "restore the file", version: int | None = None
) -> T:
    """Parse a JSON document and check it, as `read_json`. where: what RunError names."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_parse_float)
        if version is not None and isinstance(value, dict):
            check_format_version(value, Path(str(where)), version)
        return check("", schema, value)
    except (ValueError, RecursionError, ConfigError) as error:
        raise RunError(f"{where} is corrupted ({in_short(error, 200)}): {remedy}") from None


def read_rows(path: str | Path, schema: type[T], remedy: str = "restore the file") -> list[T]:
    """Read the rows of a small Parquet file, in which text was escaped, and check each. RunError as in `read_json`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = unescape_all(pq.read_table(path).to_pylist())
        return [check(f"row {n}", schema, row) for n, row in enumerate(rows, start=1)]
    except (OSError, pa.ArrowException, ValueError, ConfigError) as error:
        raise RunError(f"{path} is corrupted ({in_short(error, 200)}): {remedy}") from None


def check(key: str, hint: Any, value: Any) -> Any:
    """Return the value, or ConfigError if it is not of this type. key: its dotted name, "" for a whole document."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if typing.is_typeddict(hint):
        return _check_object(key, hint, value)
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        return None if value is None else check(key, inner, value)
    if origin is dict:
        _expect(key, value, dict, "an object")
        return {name: check(f"{key}.{name}", arguments[1], inner) for name, inner in value.items()}
    if origin is list:
        _expect(key, value, list, "a list")
        if _are_numbers(value, arguments[0]):
            return value
        return [check(f"{key}[{n}]", arguments[0], item) for n, item in enumerate(value)]
    return validate(key, hint, value)


@functools.cache
def _key_types(schema: type) -> dict[str, Any]:
    """The types of a TypedDict's keys, without NotRequired."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {
        name: typing.get_args(hint)[0] if typing.get_origin(hint) in (NotRequired, Required) else hint
        for name, hint in hints.items()
    }


def _check_object(key: str, schema: Any, value: Any) -> dict[str, Any]:
    _expect(key, value, dict, "an object")
    prefix = f"{key}." if key else ""
    if missing := sorted(schema.__required_keys__ - value.keys()):
        raise ConfigError(f"{prefix}{missing[0]} is missing")
    hints = _key_types(schema)
    return {name: check(f"{prefix}{name}", hints[name], one) if name in hints else one for name, one in value.items()}


def _are_numbers(values: list[Any], hint: Any) -> bool:
    """Whether all are of one plain type of number, in range: fast, for the rows of large confusion matrices."""
    inner, limit = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint, None)
    if not values or inner not in (int, float) or set(map(type, values)) != {inner}:
        return False
    return limit is not None and min(values) in limit and max(values) in limit


def _expect(key: str, value: Any, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{key or 'it'} is {show(repr(value)[:60])}: it must be {what}")


def _refuse_constant(name: str) -> float:
    raise ConfigError(f"it contains {name}, which is no number")


def _parse_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ConfigError(f"it contains {text[:20]}, which is too large a number")
    return value
