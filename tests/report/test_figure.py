"""A chart inside a page has the page's colours and type size; a PNG file has the same colours."""

import re
from pathlib import Path

import pytest
from matplotlib.text import Text as TextInFigure

from classifier.report import charts, png
from classifier.report.figure import (
    COLOURS,
    DARK_COLOURS,
    TRAIN,
    VALIDATION,
    create_axes,
    create_figure,
    make_logarithmic,
    render_chart,
    style_axes,
)
from tests.report.run_files import history_row

ROWS = [history_row(epoch) for epoch in (1, 2, 3)]


def draw_line(name: str = "a chart") -> str:
    figure, axes = create_axes("x", "y")
    axes.plot([0.0, 1.0], [0.5, 0.7], color=COLOURS["blue"])
    return render_chart(figure, name)


def test_colours_are_those_of_the_page_in_both_modes():
    svg = draw_line()
    assert "stroke: var(--blue)" in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg), "a colour that does not change in dark mode"
    assert COLOURS.keys() == DARK_COLOURS.keys()


def test_text_has_the_font_of_the_page_and_a_point_is_a_pixel():
    svg = draw_line()
    assert "font" not in svg
    width, view = re.findall(r'width="([\d.]+)rem"', svg), re.findall(r'viewBox="0 0 ([\d.]+)', svg)
    assert [16 * float(x) for x in width] == [float(x) for x in view] == [352]


def test_a_chart_is_the_same_each_time_and_shares_no_id_with_another():
    first, second = draw_line(), draw_line("another")
    assert first == draw_line()
    ids = [set(re.findall(r' id="(\w+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert all(set(re.findall(r"url\(#(\w+)\)", svg)) <= own for svg, own in zip((first, second), ids, strict=True))


def test_each_dot_has_its_tooltip():
    figure, axes = create_axes("x", "y")
    axes.plot([0, 1], [0, 1], "o", gid="dots")
    svg = render_chart(figure, "dots", ["<first>", "second"])
    assert re.findall("<title>(.*?)</title>", svg) == ["&lt;first&gt;", "second"]


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [0.0], [-1.0, 1.0], [1e-4, 1e4]])
def test_any_values_have_a_chart_with_few_ticks(values):
    figure, axes = create_axes("x", "y")
    axes.plot(values, values)
    assert len(re.findall("<text", render_chart(figure, "any"))) in range(4, 15)


def test_logarithmic_axis_has_plain_numbers():
    figure, axes = create_axes("images", "accuracy")
    axes.plot([100, 5000], [0, 1])
    make_logarithmic(axes, "{:,.0f}")
    svg = render_chart(figure, "sizes")
    assert ">1,000<" in svg
    assert "10^" not in svg


def test_training_and_validation_have_the_same_colours_in_pages_and_files(tmp_path: Path):
    """One function draws both."""
    chart = charts.draw_by_epoch(ROWS, "accuracy")
    assert chart is not None
    assert list(chart.legend) == [("training", TRAIN), ("validation", VALIDATION)]
    axes = create_figure().add_subplot()
    style_axes(axes, "epoch", "accuracy")
    charts.plot_by_epoch(axes, ROWS, "accuracy")
    colours = {str(line.get_label()): line.get_color() for line in axes.lines}
    assert colours["training"] == COLOURS[TRAIN]
    assert colours["validation"] == COLOURS[VALIDATION]
    assert chart.svg.count(f"stroke: var(--{TRAIN})") >= 1
    png.draw_learning_curves(ROWS, tmp_path / "curves.png")


def test_chart_by_epoch_says_what_it_shows():
    chart = charts.draw_by_epoch(ROWS, "loss")
    assert chart is not None
    assert chart.text == (
        "Loss by epoch. Training: from 0.9 in epoch 1 to 0.3 in epoch 3. Validation: from 1 in epoch 1 to 0.3333 in "
        "epoch 3. Saved: epoch 3, validation 0.3333."
    )
    assert charts.draw_by_epoch(ROWS[:0], "loss") is None


def test_a_score_of_several_labels_is_of_validation_images():
    assert charts.draw_by_epoch(ROWS, "map") is None
    chart = charts.draw_by_epoch([row | {"validation_map": row["epoch"] / 4} for row in ROWS], "map")
    assert chart is not None
    assert list(chart.legend) == [("validation", VALIDATION)]
    assert chart.text == (
        "Mean average precision by epoch. Validation: from 25.00% in epoch 1 to 75.00% in epoch 3. Saved: epoch 3, "
        "validation 75.00%."
    )


def test_text_is_literal():
    figure = create_figure()
    text = figure.add_subplot().text(0, 0, "$x_1$ \x1b")
    svg = render_chart(figure, "literal")
    assert isinstance(text, TextInFigure)
    assert ">$x_1$  <" in svg
