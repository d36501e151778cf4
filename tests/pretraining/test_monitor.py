"""What features are worth: by neighbours, and by their rank."""

import pytest
import torch

from classifier.pretraining.monitor import measure_neighbours, measure_rank


def test_the_rank_counts_directions_of_equal_strength():
    values_NF = torch.zeros(600, 8)
    values_NF[:, :3] = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    assert measure_rank(values_NF) == pytest.approx(3, abs=0.05)
    assert measure_rank(torch.ones(5, 4)) == 1.0


def test_neighbours_vote_by_their_direction():
    known_NF, labels_N = torch.tensor([[1.0, 0], [0, 1], [0, 2]]), torch.tensor([0, 1, 1])
    asked_MF = torch.tensor([[5.0, 0.1], [0.1, 5]])
    assert measure_neighbours(known_NF, labels_N, asked_MF, torch.tensor([0, 1])) == 1.0
    assert measure_neighbours(known_NF, labels_N, asked_MF, torch.tensor([1, 1])) == 0.5
