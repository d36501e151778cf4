from hypothesis import given
from hypothesis import strategies as st

from classifier.search.pareto import dominates, pareto_fronts, to_losses

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


def test_maximised_scores_are_negated():
    scores = {"accuracy": 0.9, "latency": 3.0, "loss": 0.2}
    assert to_losses(scores, ("accuracy", "latency")) == (-0.9, 3.0)


def test_fronts_of_a_small_case():
    assert pareto_fronts([(1, 4), (2, 2), (4, 1), (3, 3), (4, 4), (1, 4)]) == [0, 0, 0, 1, 2, 0]


@given(POINTS)
def test_first_front_is_not_dominated(points):
    ranks = pareto_fronts(points)
    for point, rank in zip(points, ranks, strict=True):
        assert (rank == 0) == (not any(dominates(other, point) for other in points))


@given(POINTS)
def test_dominated_points_are_on_later_fronts(points):
    ranks = pareto_fronts(points)
    for a, rank_a in zip(points, ranks, strict=True):
        for b, rank_b in zip(points, ranks, strict=True):
            if dominates(a, b):
                assert rank_a < rank_b
