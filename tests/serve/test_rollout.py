"""When a new version takes over, and when it is rolled back."""

import pytest

from classifier.serve.rollout import Comparison, Outcome, RolloutBounds

BOUNDS = RolloutBounds(share=0.25, requests=40, max_errors=0.05, max_disagreement=0.1, max_slowdown=2)


@pytest.mark.parametrize(
    ("errors", "agreements", "disagreements", "slowdown", "outcome"),
    [
        (0, 39, 0, 1.0, Outcome.UNDECIDED),
        (0, 40, 0, 1.0, Outcome.ACCEPTED),
        (2, 38, 0, 1.0, Outcome.ACCEPTED),
        (3, 0, 0, 1.0, Outcome.ROLLED_BACK),  # at once: no further request could help
        (0, 36, 4, 1.9, Outcome.ACCEPTED),
        (0, 0, 4, 1.0, Outcome.UNDECIDED),
        (0, 0, 5, 1.0, Outcome.ROLLED_BACK),
        (0, 40, 0, 2.1, Outcome.ROLLED_BACK),
        (0, 10, 0, 9.0, Outcome.UNDECIDED),
    ],
)
def test_bounds_decide(errors, agreements, disagreements, slowdown, outcome):
    comparison = Comparison(BOUNDS)
    for _ in range(errors):
        comparison.add_error()
    for n in range(agreements + disagreements):
        comparison.add(1, int(n < disagreements), 0.01, 0.01 * slowdown)
    assert comparison.judge()[0] is outcome


def test_the_share_is_evenly_spread():
    comparison = Comparison(BOUNDS)
    assert [comparison.takes() for _ in range(8)] == [False, False, False, True] * 2
