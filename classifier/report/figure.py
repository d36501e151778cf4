"""Charts in one style, drawn with matplotlib: as SVG inside a page, or as a PNG file.

Matplotlib is used without pyplot: no global state is changed, and no window is opened. Lengths are in pixels of a page,
which are the points of a figure, so that text has the same size in all charts of a page.
"""

import functools
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from classifier.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

# A page names each colour as a CSS variable, with another value in dark mode. Blue and orange are distinguishable with
# every kind of colour blindness.
COLOURS = {
    "ink": "#1c2024",
    "faint": "#687076",
    "line": "#d7dbdf",
    "ground": "#ffffff",
    "box": "#f4f6f8",
    "blue": "#0b63c5",
    "orange": "#c2410c",
    "green": "#15803d",
    "purple": "#9333ea",
    "yellow": "#8a6d00",
}
DARK_COLOURS = {
    "ink": "#e6e9ec",
    "faint": "#9ba1a6",
    "line": "#3a4046",
    "ground": "#14171a",
    "box": "#1d2125",
    "blue": "#6cb2ff",
    "orange": "#ff9a62",
    "green": "#5fd38a",
    "purple": "#c59bff",
    "yellow": "#e5c04b",
}
INK, FAINT, LINE = COLOURS["ink"], COLOURS["faint"], COLOURS["line"]
# The same in every chart; the colours of several series that are neither.
TRAIN, VALIDATION = "blue", "orange"
SERIES = ("blue", "orange", "green", "purple")
# A chart fits on a phone; the size of its text.
WIDTH, HEIGHT, TEXT_SIZE = 352, 264, 14
POINTS_PER_INCH, PIXELS_PER_REM, PNG_DPI = 72, 16, 110
# For scripts that matplotlib's own font lacks; used where installed.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "IPAGothic", "Hiragino Sans", "Yu Gothic", "Noto Sans")


def create_figure(width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """Return an empty figure of a size in pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), layout="constrained")


def create_axes(x_name: str, y_name: str) -> "tuple[Figure, Axes]":
    """Return a new figure and its axes, in the style of all charts."""
    figure = create_figure()
    axes = figure.add_subplot()
    style_axes(axes, x_name, y_name)
    return figure, axes


def style_axes(axes: "Axes", x_name: str, y_name: str) -> None:
    """Name the axes, the vertical one above it, and draw no more than grid lines at the values of the vertical one."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(x_name, color=FAINT, fontsize=TEXT_SIZE)
    axes.set_title(y_name, loc="left", color=INK, fontsize=TEXT_SIZE)
    axes.tick_params(length=0, colors=FAINT, labelsize=TEXT_SIZE)
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.margins(x=0.03, y=0.05)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)))
        axis.set_major_formatter(format_numbers())


def make_logarithmic(axes: "Axes", text: str = "{:.3g}") -> None:
    """Make the horizontal axis logarithmic, with ticks in this format."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(format_numbers(text))


def format_numbers(text: str = "{:.3g}") -> "Formatter":
    """Return a formatter of ticks without powers of ten."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: text.format(value))


def format_shares() -> "Formatter":
    """Return a formatter of ticks as percentages, with as many decimals as neighbours need to differ."""
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0)


def render_chart(figure: "Figure", name: str, tooltips: Sequence[str] = ()) -> Markup:
    """Return a figure as an SVG element for a page, whose CSS variables and font it uses.

    name: distinguishes the chart from the others of the page. tooltips: one for each point of the lines or dots whose
    gid is "dots".
    """
    import matplotlib

    stream = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": ascii(name)}):
        _save(figure, stream, format="svg", transparent=True, metadata=metadata)
    root = ElementTree.fromstring(stream.getvalue())
    points = root.iterfind(".//*[@id='dots']//{*}use")
    for point, tooltip in zip(points, tooltips, strict=False):
        ElementTree.SubElement(point, "title").text = tooltip
    for element in root.iter():
        _adapt_to_page(element)
    width, height = (float(root.attrib[key].removesuffix("pt")) / PIXELS_PER_REM for key in ("width", "height"))
    root.attrib |= {"width": f"{width:g}rem", "height": f"{height:g}rem", "aria-hidden": "true"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG file. RunError if it cannot be written."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        _save(figure, part, format="png", facecolor="white", dpi=PNG_DPI)
        part.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror or error}): make room, or choose another --out"
        ) from None


def _adapt_to_page(element: ElementTree.Element) -> None:
    """Change an SVG element of a file into one inside HTML: no namespaces, colours and font of the page."""
    element.tag = element.tag.rpartition("}")[2]
    for name, value in list(element.attrib.items()):
        del element.attrib[name]
        element.attrib[name.rpartition("}")[2]] = value
    if element.tag in ("g", "svg", "style"):
        element.attrib.pop("id", None)
    if element.tag == "style":
        element.text = None
    style = element.attrib.get("style", "")
    if element.tag == "text":
        style = re.sub(r"font-(size|family): [^;]*;? ?", "", style)
    for name, colour in COLOURS.items():
        style = style.replace(colour, f"var(--{name})")
    if style:
        element.attrib["style"] = style


def _save(figure: "Figure", target: Path | io.StringIO, **options: Any) -> None:
    _set_texts(figure)
    with warnings.catch_warnings():
        # A character that no installed font has is drawn as a box, which is no reason for a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, **options)


def _set_texts(figure: "Figure") -> None:
    """Draw every text literally, so that a class named $this$ is no formula, in an installed font for its script."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            text.set_fontfamily(_fonts())
            text.set_text("".join(c if c.isprintable() or c == "\n" else " " for c in text.get_text()))


@functools.cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
