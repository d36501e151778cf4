"""The limit of the loss holds for the whole interval, not for its middle."""

import numpy as np
import pytest

from classifier.compress.judge import compare_answers


def answers(lost: int, won: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.ones(count, bool), np.ones(count, bool)
    after[:lost] = False
    before[lost : lost + won] = False
    return before, after


@pytest.mark.parametrize(
    ("lost", "won", "count", "is_within"),
    [
        (0, 0, 100, False),  # too few images to know
        (0, 0, 3000, True),
        (10, 10, 3000, True),
        (15, 5, 3000, False),  # 0.33 points, but it may be 0.6
        (300, 290, 100_000, True),
        (5, 40, 3000, True),  # a gain
    ],
)
def test_a_loss_is_judged_by_the_end_of_its_interval(lost, won, count, is_within):
    loss = compare_answers(*answers(lost, won, count))
    assert loss.low <= loss.mean <= loss.high
    assert loss.mean == pytest.approx((lost - won) / count)
    assert loss.is_within(0.005) == is_within
