"""The linear probe ranks better features first, and caches features."""

import pytest
import torch
from safetensors.torch import save_file

from classifier import data, models
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.search import linear_probe
from classifier.training.loop import fit
from classifier.training.resolve import resolve

SMALL = {"model.name": "cnn", "data.batch": 128, "train.epochs": 4, "train.precision": "fp32", "train.threads": 1}


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


@pytest.fixture(scope="module")
def weights(digits, tmp_path_factory):
    """Two weight files of one network: trained on the digits, and randomly initialised."""
    folder = tmp_path_factory.mktemp("weights")
    experiment = resolve(Experiment().override_all(SMALL), digits)
    *_, last = fit(experiment, digits)
    torch.manual_seed(1)
    random_model = models.build(experiment.model, classes=10, channels=1, size=8)
    for name, model in (("trained", last.model), ("random", random_model)):
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
    return folder


def test_better_backbone_ranks_first(digits, weights, tmp_path):
    words = (f"cnn={weights / 'random.safetensors'}", f"cnn={weights / 'trained.safetensors'}")
    experiment = resolve(Experiment().override_all(SMALL | {"search.probe": words}), digits)
    first, second = linear_probe.rank_backbones(experiment, digits, tmp_path)
    assert first.weights.endswith("trained.safetensors")
    assert first.accuracy > 0.95
    assert (first.accuracy, -first.loss) >= (second.accuracy, -second.loss)
    assert second.accuracy > 0.5  # a linear classifier on random features is well above chance


def test_features_are_computed_once(digits, weights, tmp_path, monkeypatch):
    word = f"cnn={weights / 'trained.safetensors'}"
    experiment = resolve(Experiment().override_all(SMALL | {"search.probe": (word,)}), digits)
    (before,) = linear_probe.rank_backbones(experiment, digits, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(linear_probe, "build_model", None)  # would fail if it were called
    (after,) = linear_probe.rank_backbones(experiment, digits, tmp_path)
    assert (after.accuracy, after.loss) == (before.accuracy, before.loss)


def test_test_flip_does_not_change_the_probe(digits, weights, tmp_path):
    word = f"cnn={weights / 'trained.safetensors'}"
    changes = SMALL | {"search.probe": (word,), "augment.test_flip": True}
    (flipped,) = linear_probe.rank_backbones(resolve(Experiment().override_all(changes), digits), digits, tmp_path)
    plain = SMALL | {"search.probe": (word,)}
    (once,) = linear_probe.rank_backbones(resolve(Experiment().override_all(plain), digits), digits, tmp_path / "other")
    assert flipped.accuracy == once.accuracy
    assert flipped.loss == pytest.approx(once.loss)


@pytest.mark.parametrize("word", ["resnet18", "=imagenet", "resnet18="])
def test_word_without_name_or_weights_is_refused(word):
    with pytest.raises(ConfigError, match="NAME=WEIGHTS"):
        linear_probe.parse_backbones((word,))
