"""What a page consists of, as plain data; templates/ has the HTML, which escapes every text."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from classifier.report.figure import COLOURS, DARK_COLOURS
from classifier.storage.atomic import write_atomically
from classifier.text import show

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    style: Literal["", "big", "faint", "warning"] = ""


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A bullet for each line."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Commands, one a line."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table. link: the anchor of a section of this page. share: how strongly it is coloured, 0 to 1."""

    text: str
    style: Literal["", "error", "warning", "note", "correct", "wrong"] = ""
    link: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways on its own where it is too wide. bold_row: the index of a row to emphasise.

    text_columns: how many columns, from the left, hold text; the others hold numbers.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    bold_row: int | None = None
    text_columns: int = 1
    is_matrix: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart made by figure.render_chart. text: what it shows, for who cannot see it. legend: names and colours."""

    svg: Markup
    text: str
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Charts:
    """Charts side by side, as far as the page is wide enough."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Image:
    """An image that the page contains, as a data URI. link: the relative URL of the full image; else it enlarges."""

    source: Markup
    text: str
    link: str = ""


@dataclass(frozen=True)
class Card:
    """Rows of images with a title and lines of text."""

    images: Sequence[Sequence[Image]]
    title: str = ""
    lines: Sequence[str] = ()
    faint_line: str = ""


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    cards: Sequence[Card]


Block = Text | Heading | Bullets | Code | Table | Charts | Cards


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading. note: a line in faint print."""

    title: str
    blocks: Sequence[Block]
    note: str = ""
    name: str = ""
    """Its anchor; by default made of the title."""

    @property
    def anchor(self) -> str:
        return self.name or re.sub(r"\W+", "-", self.title.lower())


@dataclass(frozen=True)
class Page:
    """A page: what stands above the list of contents, then its sections."""

    title: str
    summary: Sequence[Block]
    sections: Sequence[Section]
    has_contents: bool = True
    """Whether to list the sections; not where the summary has links to them."""


def write(path: Path, page: Page, *, refresh: float | None = None) -> Path:
    """Write a page. refresh: seconds after which a browser reloads it."""
    template = _environment().get_template("page.html")
    html = template.render(page=page, refresh=refresh, colours=COLOURS, dark_colours=DARK_COLOURS)
    write_atomically(path, show(html, keep="\n"))
    return path


def describe_hidden(shown: int, total: int, what: str) -> list[Text]:
    """Return a line about the rows that a table leaves out; none if it shows all."""
    return [Text(f"and {total - shown:,} {what}", "faint")] if total > shown else []


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("classifier.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__.lower()
    return environment
