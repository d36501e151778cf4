"""The scores that evaluate prints, of few images too."""

import io

import torch
from rich.console import Console

from classifier.metrics.scores import compute_scores
from jobs.steps.scores_table import describe_scores


def print_scores(*supports: int, is_ordinal: bool = False) -> str:
    """What is printed of a model without errors on so many images of each class."""
    labels_N = torch.cat([torch.full((support,), k) for k, support in enumerate(supports)])
    probabilities_NK = 0.7 * torch.nn.functional.one_hot(labels_N, len(supports)) + 0.3 / len(supports)
    console = Console(file=io.StringIO(), width=100)
    names = [f"class{k}" for k in range(len(supports))]
    for line in describe_scores(compute_scores(probabilities_NK, labels_N, names, is_ordinal=is_ordinal)):
        console.print(line)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_no_error_in_22_images_makes_nothing_certain():
    text = print_scores(11, 7, 4)
    assert "test accuracy 100.00% (85.1% to 100.0%) on 22 images" in text
    assert "macro F1 100.00% (" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("class") and "%" in line][1:]
    assert [row[-4:] for row in rows] == [
        ["85.1%", "to", "100.0%", "11"],
        ["78.5%", "to", "100.0%", "7"],
        ["67.6%", "to", "100.0%", "4"],
    ]


def test_calibration_of_few_images_is_not_judged():
    assert "too few images to judge calibration" in print_scores(3, 3)
    assert "expected calibration error" in print_scores(2000, 2000)


def test_grades_have_scores_of_their_own():
    assert "quadratic kappa 1.000 (0." in print_scores(11, 7, 4, is_ordinal=True)
    assert "mean absolute error 0.000 (0.000 to 0." in print_scores(11, 7, 4, is_ordinal=True)
    assert "quadratic kappa" not in print_scores(11, 7, 4)
