"""search.html has every section, works for the smallest search, and loads nothing from the network."""

import itertools
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.report import search_page
from classifier.report.charts import ParallelAxis, draw_bars, draw_parallel
from tests.browser import Outline, open_page
from tests.report.run_files import history_row

IMPORTANCE = {"optimizer.lr": 0.8, "model.name": 0.2}


def write_search_page(folder: Path, trials: int, *, importance=None, objective=("accuracy",), name="photos") -> str:
    """Write the results of a search with this many trials and return its page."""
    rows = []
    for i in range(trials):
        trial, accuracy = f"{i:08x}", 0.9 - i / 50
        trial_folder = folder / "trials" / trial
        trial_folder.mkdir(parents=True)
        lines = [history_row(e) | {"validation_accuracy": accuracy - 0.1 / e} for e in (1, 2, 3)]
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
    dataset |= {"fingerprint": "0123"}
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
    assert re.search(r"Test accuracy 90[.0]*% .*; the test split was read once\.", page)


@pytest.mark.parametrize(
    ("trials", "importance", "is_shown"), [(8, IMPORTANCE, False), (12, IMPORTANCE, True), (40, {}, False)]
)
def test_importance_is_shown_of_enough_trials(tmp_path, trials, importance, is_shown):
    page = write_search_page(tmp_path, trials, importance=importance)
    assert "Hyperparameter importance" in Outline(page).headings
    assert ("Importance of each setting" in page) == is_shown
    assert (f"{trials} trials are too few to tell which settings mattered." in page) == (not is_shown)


@pytest.mark.parametrize("trials", [1, 2])
def test_smallest_search_has_a_page(tmp_path, trials):
    outline = Outline(write_search_page(tmp_path, trials))
    assert outline.headings == ["Search of photos", "Score over time", "Learning curves", "Trials", "Commands"]


def test_page_has_no_scripts_and_no_network_requests(tmp_path):
    page = write_search_page(tmp_path, 3)
    assert not re.findall(r"https?:|//[a-z]|<script|@import|url\((?!#)", page)
    assert "prefers-color-scheme: dark" in page


def test_each_trial_has_a_dot_with_its_score(tmp_path):
    page = write_search_page(tmp_path, 3)
    assert page.count("<use ") == 3
    assert "<title>00000002: 86.00%</title>" in page


def test_charts_say_in_words_what_they_show(tmp_path):
    texts = Outline(write_search_page(tmp_path, 12, importance=IMPORTANCE)).chart_texts
    assert "Best accuracy so far, over 2.0 minutes. First trial 00000000: 90.00%; best 90.00%." in texts
    assert "Importance of each setting: optimizer.lr 80%, model.name 20%" in texts
    assert any(text.startswith("All trials: 12 lines over lr 0.001, 0.012; name cnn, resnet9_16;") for text in texts)
    assert any(text.startswith("Validation accuracy by epoch; in the last one: 00000000 86.7%") for text in texts)


def test_bars_and_parallel_coordinates_are_complete():
    bars = draw_bars({"a": 0.5, "b": 0.0}, "shares")
    assert all(f">{word}</text>" in bars.svg for word in ("a", "b", "50%", "0%"))
    chart = draw_parallel(
        [
            ParallelAxis("lr", [0.0, 1.0], {0.0: "1", 1.0: "2"}),
            ParallelAxis("model", [1.0, 0.0], {0.0: "a", 1.0: "b"}),
        ],
        "all",
    )
    assert all(f">{word}</text>" in chart.svg for word in ("lr", "model", "1", "2", "a", "b"))
    assert chart.svg.count("stroke: var(--orange)") == 1, "the best trial"


@pytest.mark.parametrize("values", [[1e-4, 1e-1], [0.3, 0.3], ["cnn", "a model with a name that is very long"]])
def test_labels_of_parallel_axes_do_not_collide(values):
    """Texts of neighbouring axes are apart, even if each letter is as wide as in matplotlib's own wide font."""
    axes = [
        ParallelAxis(f"a_long_setting_{n}", [0.0, 1.0], {0.0: str(values[0]), 1.0: str(values[-1])}) for n in range(7)
    ]
    svg = draw_parallel(axes, "all").svg
    by_height: dict[str, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)<', svg):
        by_height.setdefault(y, []).append((float(x), text))
    assert len(by_height) == 3
    for texts in by_height.values():
        for (x, text), (next_x, next_text) in itertools.pairwise(sorted(texts)):
            assert next_x - x > 8 * (len(text) + len(next_text)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("width", [380, 1200])
def test_browser_shows_no_errors_requests_or_sideways_scrolling(tmp_path, width):
    page = write_search_page(tmp_path, 30, importance=IMPORTANCE, objective=("accuracy", "latency"))
    open_page(page, width, tmp_path).check(width)
