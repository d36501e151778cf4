"""Statistics of a model's layers; tests/evaluation/test_robustness.py tests what is made of them."""

import threading

import torch
from torch import nn

from classifier.inference.out_of_distribution import capture_activations


def test_only_the_own_threads_passes_count():
    model = nn.Sequential(nn.Conv2d(1, 2, 1))
    with capture_activations(model, ["0"]) as stats:
        other = threading.Thread(target=model, args=(torch.zeros(5, 1, 2, 2),))
        other.start()
        other.join()
        model(torch.ones(3, 1, 2, 2))
    assert stats["0"].shape == (3, 4)
