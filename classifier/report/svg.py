"""Charts as SVG text for self-contained pages, which style them with STYLE."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Size and margins of a chart in its own units. A page scales it to its width; 14 units of text stay legible on a phone.
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 34, 46
COLOURS = 6

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --faint: #687076; --line: #d7dbdf; --ground: #ffffff; --box: #f4f6f8;
  --c0: #0b63c5; --c1: #c2410c; --c2: #15803d; --c3: #9333ea; --c4: #b8860b; --c5: #be185d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --faint: #9ba1a6; --line: #3a4046; --ground: #14171a;
  --box: #1d2125; --c0: #6cb2ff; --c1: #ff9a62; --c2: #5fd38a; --c3: #c59bff; --c4: #e5c04b; --c5: #ff8fc0; } }
svg.chart { width: 100%; max-width: 640px; height: auto; display: block; }
svg.chart text { font: 14px system-ui, sans-serif; fill: var(--faint); }
svg.chart .axis { stroke: var(--line); stroke-width: 1; }
svg.chart .line { fill: none; stroke-width: 2; }
svg.chart .thin { fill: none; stroke-width: 1.2; stroke-opacity: 0.55; }
svg.chart .ink { fill: var(--ink); }
""" + "".join(
    f"svg.chart .s{i} {{ stroke: var(--c{i}); }} svg.chart .f{i} {{ fill: var(--c{i}); }}\n" for i in range(COLOURS)
)


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic scale; `unit` is the format of its numbers, such as .1%."""

    low: float
    high: float
    name: str = ""
    unit: str = ".3g"
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], name: str = "", unit: str = ".3g", log: bool = False) -> "Axis":
        """Return an axis that contains all the values; a linear one with a margin."""
        low, high = min(values), max(values)
        if log:
            return cls(low, high if high > low else low * 10, name, unit, log=True)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, name, unit)

    def fraction(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 4) -> list[float]:
        """Return about `count` values to label, in ascending order."""
        if self.log:
            return [self.low * (self.high / self.low) ** (i / count) for i in range(count + 1)]
        step = 10 ** math.floor(math.log10((self.high - self.low) / count))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= count + 1)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


@dataclass(frozen=True)
class Series:
    """One set of points; `kind` is line, thin, steps or dots. `titles` are the tooltips of dots."""

    xs: Sequence[float]
    ys: Sequence[float]
    kind: str = "line"
    colour: int = 0
    titles: Sequence[str] = ()


def plot(series: Sequence[Series], x: Axis, y: Axis, label: str) -> str:
    """Draw lines and dots over two axes. label: the description for screen readers."""

    def to_canvas(a: float, b: float) -> tuple[float, float]:
        return LEFT + x.fraction(a) * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y.fraction(b) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(x, y)]
    for one in series:
        points = [to_canvas(a, b) for a, b in zip(one.xs, one.ys, strict=True)]
        if one.kind == "dots":
            titles = one.titles or [""] * len(points)
            parts += [
                f'<circle class="f{one.colour}" cx="{a:.1f}" cy="{b:.1f}" r="4"><title>{escape(title)}</title></circle>'
                for (a, b), title in zip(points, titles, strict=True)
            ]
        elif points:
            if one.kind == "steps":
                points = [p for (a, b), (c, _) in itertools.pairwise(points) for p in ((a, b), (c, b))] + points[-1:]
            style = "thin" if one.kind == "thin" else "line"
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline class="{style} s{one.colour}" points="{path}"/>')
    return _svg("".join(parts), label)


def bars(values: dict[str, float], label: str, unit: str = ".0%") -> str:
    """Draw a horizontal bar for each name, with the name above it."""
    row, top = 44, 6
    largest = max(values.values(), default=0.0) or 1.0
    parts = []
    for i, (name, value) in enumerate(values.items()):
        y, length = top + i * row, (WIDTH - 90) * value / largest
        parts.append(f'<text class="ink" x="0" y="{y + 14}">{escape(name)}</text>')
        parts.append(f'<rect class="f0" x="0" y="{y + 20}" width="{max(length, 1):.1f}" height="14" rx="2"/>')
        parts.append(f'<text x="{length + 8:.1f}" y="{y + 32}">{value:{unit}}</text>')
    return _svg("".join(parts), label, height=top + row * len(values))


def parallel(axes: Sequence[tuple[str, Sequence[float], Sequence[str]]], label: str) -> str:
    """Draw parallel coordinates. axes: name, position of each row from 0 to 1, and labels of the lower and upper end.

    Rows are sorted best first; the best is drawn bold, on top.
    """
    height, bottom, top, left, right = 340, 92, 40, 92, 40  # names are slanted
    xs = [left + i * (WIDTH - left - right) / max(1, len(axes) - 1) for i in range(len(axes))]
    parts = []
    rows = len(axes[0][1]) if axes else 0
    for row in reversed(range(rows)):
        points = " ".join(
            f"{x:.1f},{height - bottom - shares[row] * (height - top - bottom):.1f}"
            for x, (_, shares, _) in zip(xs, axes, strict=True)
        )
        parts.append(f'<polyline class="{"line s1" if row == 0 else "thin s0"}" points="{points}"/>')
    for x, (name, _, ends) in zip(xs, axes, strict=True):
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(f'<text text-anchor="middle" x="{x:.1f}" y="{top - 10}">{escape(ends[-1])}</text>')
        parts.append(f'<text text-anchor="middle" x="{x:.1f}" y="{height - bottom + 18}">{escape(ends[0])}</text>')
        turn = f"rotate(-24 {x:.1f} {height - bottom + 38})"
        opening_tag = (
            f'<text class="ink" text-anchor="end" transform="{turn}" x="{x + 14:.1f}" y="{height - bottom + 38}">'
        )
        parts.append(f"{opening_tag}{escape(name)}</text>")
    return _svg("".join(parts), label, height=height)


def _axes(x: Axis, y: Axis) -> str:
    parts = []
    floor = HEIGHT - BOTTOM
    for tick in x.ticks():
        tick_x = LEFT + x.fraction(tick) * (WIDTH - LEFT - RIGHT)
        parts.append(f'<text text-anchor="middle" x="{tick_x:.1f}" y="{floor + 18}">{tick:{x.unit}}</text>')
    for tick in y.ticks():
        tick_y = floor - y.fraction(tick) * (HEIGHT - TOP - BOTTOM)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{tick_y:.1f}" y2="{tick_y:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{LEFT - 6}" y="{tick_y + 5:.1f}">{tick:{y.unit}}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text text-anchor="middle" x="{middle}" y="{HEIGHT - 8}">{escape(x.name)}</text>')
    parts.append(f'<text class="ink" x="0" y="{TOP - 16}">{escape(y.name)}</text>')
    return "".join(parts)


def _svg(inside: str, label: str, height: int = HEIGHT) -> str:
    return f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height}">{inside}</svg>'
