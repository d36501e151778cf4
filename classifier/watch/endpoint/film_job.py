"""What a film is to be watched for: by which model, by which rules, within which limits."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.config.fields import suggest
from classifier.errors import ConfigError
from classifier.serve.bounds import RequestError
from classifier.watch.observer import Region
from classifier.watch.rules import Rule, parse_rule

if TYPE_CHECKING:
    from classifier.bundle.predictor import Predictor

MAX_RULES = 32
NAMES = ("alert", "fps", "half_life", "motion", "region", "version")
"""Of the parameters in the URL."""
_LIMITS = {"fps": (0.001, 1000.0), "half_life": (0.0, 86400.0), "motion": (0.0, 255.0)}


@dataclass(frozen=True, kw_only=True)
class FilmBounds:
    """Limits of films that are sent."""

    at_once: int = 1
    """Films in progress."""
    film_bytes: int = 512 << 20
    seconds: float = 600.0
    """In which a film has come and is watched."""
    silent_seconds: float = 30.0
    """In which more of it comes, and in which the client takes an event."""
    max_pixels: int = 100_000_000
    """Of a frame."""


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """As those of `watch`, by the same names."""

    rules: tuple[Rule, ...] = ()
    fps: float = 5.0
    half_life: float = 0.5
    motion: float = 0.0
    region: Region | None = None


@dataclass(frozen=True, kw_only=True)
class FilmJob:
    """What the process that watches a film is told; it can be pickled."""

    path: Path
    digest: str
    """Of the bundle, as the server has loaded it."""
    open_predictor: "Callable[[Path], Predictor]"
    settings: WatchSettings
    max_pixels: int
    length: int | None
    """Bytes of the film; None if it comes in chunks, of which nobody knows how many there are."""


def read_settings(parameters: Sequence[tuple[str, str]], answer_names: Sequence[str]) -> WatchSettings:
    """Read the parameters of a URL. RequestError (400) says which one is wrong. answer_names: of the model."""
    for name, _ in parameters:
        if name not in NAMES:
            hint = suggest(name, NAMES) or f": there are {', '.join(NAMES[:-1])} and {NAMES[-1]}"
            raise RequestError(400, f"{name[:40]!r} is unknown{hint}")
    given = dict(parameters)
    for name in given.keys() - {"alert"}:
        if [one for one, _ in parameters].count(name) > 1:
            raise RequestError(400, f"{name} is given twice: give it once")
    texts = [value for name, value in parameters if name == "alert"]
    if len(texts) > MAX_RULES:
        raise RequestError(400, f"{len(texts)} alerts are more than {MAX_RULES}: send fewer")
    numbers = {name: _read_number(name, given) for name in _LIMITS if name in given}
    try:
        rules = tuple(parse_rule(text, answer_names) for text in texts)
        region = Region.parse(given["region"]) if "region" in given else None
    except ConfigError as error:  # which names an option of the command line
        raise RequestError(400, str(error).removeprefix("--")) from None
    return WatchSettings(rules=rules, region=region, **numbers)


def _read_number(name: str, given: Mapping[str, str]) -> float:
    low, high = _LIMITS[name]
    try:
        value = float(given[name])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise RequestError(400, f"{name} is a number from {low:g} to {high:g}")
    return value
