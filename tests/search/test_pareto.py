from hypothesis import given
from hypothesis import strategies as st

from classifier.search.pareto import dominates, fronts, losses

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


def test_scores_become_losses():
    scores = {"accuracy": 0.9, "latency": 3.0, "loss": 0.2}
    assert losses(scores, ("accuracy", "latency")) == (-0.9, 3.0)


def test_fronts_of_a_small_case():
    assert fronts([(1, 4), (2, 2), (4, 1), (3, 3), (4, 4), (1, 4)]) == [0, 0, 0, 1, 2, 0]


@given(POINTS)
def test_the_first_front_is_what_nothing_dominates(points):
    ranks = fronts(points)
    for point, rank in zip(points, ranks, strict=True):
        assert (rank == 0) == (not any(dominates(other, point) for other in points))


@given(POINTS)
def test_a_point_is_behind_whatever_dominates_it(points):
    ranks = fronts(points)
    for a, rank_a in zip(points, ranks, strict=True):
        for b, rank_b in zip(points, ranks, strict=True):
            if dominates(a, b):
                assert rank_a < rank_b
