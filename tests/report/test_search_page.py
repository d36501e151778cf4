"""search.html has every section, works for the smallest search, and loads nothing from the network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.report import search_page
from classifier.report.svg import Axis, Series, bars, parallel, plot
from tests.browser import open_page

IMPORTANCE = {"optimizer.lr": 0.8, "model.name": 0.2}


def write_search_page(folder: Path, trials: int, *, importance=None, objective=("accuracy",), name="photos") -> str:
    """Write the results of a search with this many trials and return its page."""
    rows = []
    for i in range(trials):
        trial, accuracy = f"{i:08x}", 0.9 - i / 50
        trial_folder = folder / "trials" / trial
        trial_folder.mkdir(parents=True)
        lines = [{"epoch": e, "step": e, "seconds": 1.0, "validation_accuracy": accuracy - 0.1 / e} for e in (1, 2, 3)]
        (trial_folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        row = {"rank": i + 1, "trial": trial, "status": "finished", "epochs": 3, "best_epoch": 3, "at": 10.0 * (i + 1)}
        row |= {"validation_accuracy": accuracy, "validation_macro_f1": accuracy, "validation_loss": 1 - accuracy}
        row |= {
            "latency": 1.0 + i,
            "size": 1e5 * (i + 1),
            "on_front": i == 0,
            "source": "recipe" if i == 0 else "drawn",
        }
        rows.append(row | {"optimizer.lr": 1e-3 * (i + 1), "model.name": "cnn" if i % 2 else "resnet9_16"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "trials.parquet")
    scores = {"accuracy": 0.9, "macro_f1": 0.9, "loss": 0.1, "count": 100}
    dataset = {"name": name, "counts": {"train": 9, "validation": 100, "test": 100}, "class_names": ["a", "b"]}
    result = {"format_version": 1, "kind": "tune", "status": "finished", "seconds": 90.0, "dataset": dataset}
    result |= {"test": scores, "selection": scores, "winner": "00000000", "trials": {"finished": trials, "failed": 0}}
    result |= {
        "importance": importance or {},
        "objective": list(objective),
        "device": "cpu",
        "versions": {"torch": "2"},
    }
    (folder / "result.json").write_text(json.dumps(result | {"config": {"seed": 0}}))
    return search_page.write(folder).read_text()


class Outline(HTMLParser):
    """Checks that tags are closed in order, and collects the headings."""

    VOID = ("meta", "link", "rect", "circle", "polyline", "line")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def test_page_has_every_section(tmp_path):
    page = write_search_page(tmp_path, 8, importance=IMPORTANCE, objective=("accuracy", "latency"))
    outline = Outline(page)
    assert outline.open == []
    assert outline.headings == [
        "Search of photos",
        "Score over time",
        "Pareto front",
        "Hyperparameter importance",
        "All trials",
        "Learning curves",
        "Trials",
        "Commands",
    ]
    assert "90.00%" in page
    assert "00000007" in page


@pytest.mark.parametrize("trials", [1, 2])
def test_smallest_search_has_a_page(tmp_path, trials):
    outline = Outline(write_search_page(tmp_path, trials))
    assert outline.headings == ["Search of photos", "Score over time", "Learning curves", "Trials", "Commands"]


def test_page_has_no_scripts_and_no_network_requests(tmp_path):
    page = write_search_page(tmp_path, 3)
    assert not re.findall(r"https?:|//[a-z]|<script|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page


def test_names_are_escaped(tmp_path):
    page = write_search_page(tmp_path, 3, name="<script>alert(1)</script>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_points_are_inside_the_chart():
    xs, ys = [0.0, 5.0, 10.0], [0.5, 0.9, 0.7]
    svg = plot([Series(xs, ys, "dots")], Axis.over(xs), Axis.over(ys), "d")
    points = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert len(points) == 3
    assert all(62 <= x <= 466 and 34 <= y <= 254 for x, y in points)
    assert points[1][1] < points[2][1] < points[0][1]  # larger values are higher


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0], [-1.0, 1.0], [1e-4, 1e4]])
def test_axis_covers_any_values(values):
    axis = Axis.over(values)
    assert all(0 <= axis.fraction(value) <= 1 for value in values)
    ticks = axis.ticks()
    assert ticks == sorted(set(ticks))
    assert all(axis.low - 1e-9 <= tick <= axis.high + 1e-9 for tick in ticks)
    assert len(ticks) in range(1, 8)


def test_logarithmic_axis_gives_each_decade_the_same_length():
    axis = Axis.over([1e-4, 1e-1], log=True)
    assert [round(axis.fraction(value), 6) for value in (1e-4, 1e-3, 1e-2, 1e-1)] == [0, 0.333333, 0.666667, 1]


def test_bars_and_parallel_coordinates_are_complete():
    assert bars({"a": 0.5, "b": 0.0}, "shares").count("<rect") == 2
    svg = parallel([("lr", [0.0, 1.0], ("1", "2")), ("model", [1.0, 0.0], ("a", "b"))], "all")
    assert svg.count("<polyline") == 2
    xs = [float(x) for x in re.findall(r'<line class="axis" x1="([\d.]+)"', svg)]
    assert all(90 <= x <= 440 for x in xs)  # leaves room for the labels


@pytest.mark.slow
@pytest.mark.parametrize("width", [380, 1200])
def test_browser_shows_no_errors_requests_or_sideways_scrolling(tmp_path, width):
    page = write_search_page(tmp_path, 30, importance=IMPORTANCE, objective=("accuracy", "latency"))
    open_page(page, width, tmp_path).check(width)
