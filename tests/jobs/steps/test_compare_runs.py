"""Two trainings are equal only if all that either has is in the other, too."""

import json

import pytest
import torch

from jobs.steps.compare_runs import compare

WEIGHTS = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
ROW = {"epoch": 1, "order": "x", "train_loss": 0.5, "seconds": 1.0}


@pytest.mark.parametrize(
    ("weights", "rows", "weight_counts", "row_counts", "difference"),
    [
        (WEIGHTS, [ROW], (3, 3), (1, 1, 1), 0.0),
        (WEIGHTS, [ROW | {"seconds": 9.0}], (3, 3), (1, 1, 1), 0.0),
        (WEIGHTS | {"a": torch.tensor([1.0, 2.5])}, [ROW], (3, 2), (1, 1, 1), 0.5),
        (WEIGHTS | {"a": torch.tensor([1.0, torch.nan])}, [ROW], (3, 2), (1, 1, 1), None),
        (WEIGHTS | {"a": torch.tensor([1.0])}, [ROW], (3, 1), (1, 1, 1), 0.0),
        (WEIGHTS | {"c": torch.tensor([1.0])}, [ROW], (4, 3), (1, 1, 1), 0.0),
        ({"a": WEIGHTS["a"]}, [ROW], (3, 2), (1, 1, 1), 0.0),
        (WEIGHTS, [ROW, ROW | {"epoch": 2}], (3, 3), (2, 1, 1), 0.0),
        (WEIGHTS, [], (3, 3), (1, 0, 0), 0.0),
        (WEIGHTS, [ROW | {"order": "y"}], (3, 3), (1, 0, 0), 0.0),
        (WEIGHTS, [{k: v for k, v in ROW.items() if k != "train_loss"}], (3, 3), (1, 1, 0), 0.0),
    ],
)
def test_everything_that_one_of_two_trainings_has_is_compared(weights, rows, weight_counts, row_counts, difference):
    found = compare(WEIGHTS, weights, [ROW], rows)
    assert (found.weights, found.equal_weights) == weight_counts
    assert (found.epochs, found.equal_orders, found.equal_rows) == row_counts
    assert found.is_equal == (len({*weight_counts}) == len({*row_counts}) == 1)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["largest_difference"] == difference
    assert list(found.lines())


def test_nothing_is_no_proof():
    assert not compare({}, {}, [], []).is_equal
    assert not compare(WEIGHTS, WEIGHTS, [], []).is_equal
