"""What the report says is proven, and whoever cannot see it is told; its images lead to their files."""

import json
import re
from pathlib import Path

import pytest
from filelock import FileLock

from classifier.report import model_card, run_page
from classifier.report.run_page import splits_share_images
from classifier.report.sections.column_section import describe_gain
from classifier.runs.folder import LOCK
from tests.browser import Outline, open_page
from tests.report.run_files import fusion_of, jpeg, write_run

SECTIONS = ["Data", "Training", "Folds", "Learning curve", "Confusion", "Classes", "All scores", "Calibration"]
SECTIONS += ["Hard examples", "Robustness", "Search", "Integrity checks", "Commands"]


def read_page(folder: Path, data_path: Path) -> str:
    return run_page.write(write_run(folder, ["a red.jpg", "dog"], data_path=str(data_path))).read_text()


def test_page_of_every_kind_of_result_lists_its_sections(tmp_path: Path) -> None:
    outline = Outline(read_page(tmp_path / "run", tmp_path))
    assert outline.headings == ["run: classifier for a red.jpg", *SECTIONS]
    assert outline.links == [f"#{name.lower().replace(' ', '-')}" for name in SECTIONS]


def test_images_say_what_they_show_and_link_to_their_files(tmp_path: Path) -> None:
    unlinked = Outline(read_page(tmp_path / "a", tmp_path))
    (tmp_path / "a red.jpg").write_bytes(jpeg())
    linked = Outline(read_page(tmp_path / "b", tmp_path))
    assert (
        linked.image_texts
        == unlinked.image_texts
        == [
            "a red.jpg, predicted dog (90%), label: a red.jpg",
            "regions of a red.jpg that support dog (Grad-CAM)",
            "training image a red.jpg, label: a red.jpg",
        ]
    )
    assert [link for link in unlinked.links if not link.startswith("#")] == []
    assert [link for link in linked.links if not link.startswith("#")] == 2 * ["../a%20red.jpg"]


def test_charts_say_what_they_show(tmp_path: Path) -> None:
    texts = Outline(read_page(tmp_path / "run", tmp_path)).chart_texts
    starts = [
        "Accuracy by epoch.",
        "Loss by epoch.",
        "Training and validation accuracy by the number of training images",
        "Accuracy by confidence.",
        "Accuracy on the images that the model is most confident about.",
        "Accuracy under corruptions, by severity (0, 1, 2, 3, 4, 5).",
        "Accuracy under attack, by change of each value",
        "importance of each setting: a red.jpg 80%",
    ]
    assert len(texts) == len(starts)
    assert all(text.startswith(start) for text, start in zip(texts, starts, strict=True))


def test_a_page_says_where_validation_is_by_folds(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["cat", "dog"], by_folds=True)
    page, card = run_page.write(folder).read_text(), (folder / model_card.NAME).read_text()
    folds = "by 5 folds of the training images"
    for start in ("), ", "classes: cat, dog. Validated ", "3 s, 100 images/s, validated ", "fitted on 60 images, "):
        assert f"{start}{folds}." in page, start
    assert f"Predicted {folds}." in page
    assert f"## Scores (validation, {folds})" in card
    plain = run_page.write(write_run(tmp_path / "plain", ["cat", "dog"])).read_text()
    assert "folds of the training images" not in plain


def test_nested_classes_have_scores_at_each_level(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["animal/cat", "animal/dog", "plant/fern", "plant/moss"], task="nested")
    page, card = run_page.write(folder).read_text(), (folder / model_card.NAME).read_text()
    outline = Outline(page)
    assert "Levels" in outline.headings
    assert re.search(r"Level 1, of 2 classes: accuracy \d+\.\d% \(", page)
    assert "Level 1, of 2 classes: accuracy" in card
    assert re.search(r"one above it may be: so on \d+ of 60 images. It holds the true class in", page)


def test_grades_have_scores_of_their_own(tmp_path: Path) -> None:
    page = run_page.write(write_run(tmp_path / "run", ["none", "mild", "severe"], task="ordinal")).read_text()
    assert re.search(
        r"Quadratic weighted kappa 0\.\d{3} \(0\.\d{3} to [01]\.\d{3}\)\. Predictions are 0\.\d\d grades off", page
    )
    assert "mean absolute error, in grades" in page


@pytest.mark.parametrize("width", [390, 1280])
def test_columns_are_compared_and_their_importance_is_shown(width: int, tmp_path: Path) -> None:
    names = ["weight", "colour of the largest part, as it was seen from above"]
    folder = write_run(tmp_path / "run", ["cat", "dog"], columns=names)
    page, card = run_page.write(folder).read_text(), (folder / model_card.NAME).read_text()
    outline = Outline(page)
    assert "Columns" in outline.headings
    assert (
        "Image and columns together have an accuracy of 90.0%, the image alone 50.0% and the columns alone 60.0%: "
        "together they gain 30.0 percentage points on the better of the two." in page
    )
    (chart,) = [text for text in outline.chart_texts if text.startswith("accuracy lost, points: the image 30.0, ")]
    assert f"all columns together 20.0, column weight 10.0, column {names[1]} 0.0" in chart
    assert "10.0 ± 2.0" in outline.texts
    assert "10 repeats, on 60 validation images)" in page
    assert f"beside the image, columns: weight (number), {names[1]} (number)." in card
    open_page(page, width, tmp_path).check(width)


def test_columns_that_bring_nothing_are_not_praised() -> None:
    fusion = fusion_of(["weight"])
    assert "which may be chance on 60 images" in describe_gain(fusion | {"columns": {"accuracy": 0.88, "loss": 1}})
    assert describe_gain(fusion | {"image": {"accuracy": 0.9, "loss": 1}}).endswith("brings nothing on these images.")


def test_a_run_that_could_not_be_tested_says_why(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["cat", "dog"])
    about = json.loads((folder / "bundle" / "bundle.json").read_text())
    about["scores"], about["dataset"]["counts"]["test"] = {"validation": None, "test": None}, 0
    (folder / "bundle" / "bundle.json").write_text(json.dumps(about))
    (folder / "result.json").unlink()
    assert "Not tested: every class has only one image." in run_page.write(folder).read_text()


def test_page_of_a_running_training_reloads_and_has_what_is_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["cat", "dog"])
    for path in ("result.json", "bundle/bundle.json", "robustness.json"):
        (folder / path).unlink()
    with FileLock(folder / LOCK):
        page = run_page.write(folder, refresh=30.0).read_text()
    assert '<meta http-equiv="refresh" content="30.0">' in page
    assert "This run is in progress" in page
    assert Outline(page).headings[1:] == ["Data", "Training", "Integrity checks", "Commands"]


def test_page_of_a_killed_training_says_that_it_was_stopped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ["cat", "dog"])
    (folder / "result.json").unlink()
    page = run_page.write(folder).read_text()
    assert "This run did not finish (status: stopped)." in page
    assert f"classifier train --resume {folder}" in page


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_browser_shows_no_errors_requests_or_sideways_scrolling(tmp_path: Path, width: int) -> None:
    open_page(read_page(tmp_path / "run", tmp_path), width, tmp_path).check(width)


def test_shared_images_are_known_by_the_kind_of_finding() -> None:
    other = {"kind": "missing_class", "text": "test has no picture of 'cat'."}
    shared = {"kind": "duplicates_across", "text": "in any words"}
    assert splits_share_images({"findings": [other, shared]}, {})
    assert not splits_share_images({"findings": [other]}, {"findings": ["1 lies in train too, byte for byte: a."]})


def test_shared_images_in_runs_without_kinds_are_known_by_the_wording() -> None:
    assert splits_share_images({}, {"findings": ["2 pictures of test lie in train too, byte for byte: a.png, b.png."]})
    assert not splits_share_images({"loans": []}, {"findings": ["test has no picture of 'cat'."]})
    assert not splits_share_images({}, {})
