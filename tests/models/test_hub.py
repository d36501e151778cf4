"""Weights in a hub: found in its cache, downloaded, or given up within the stated time."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch

from classifier.config.backbones import BETTER, INSTALLED
from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models import build, hub
from tests.fake_hub import find_closed_port, serve_hub, swallow, use_hub, write_weights

TINY = "timm/test_vit.r160_in1k"


def test_weights_are_downloaded_once_and_used_without_a_network(tmp_path: Path, monkeypatch):
    weights = write_weights(TINY, tmp_path / "w.safetensors")
    with serve_hub({TINY: weights}) as address:
        use_hub(monkeypatch, address, tmp_path / "cache")
        assert hub.find_hub_weights(TINY) is None
        assert hub.is_in_reach(TINY, 20)
        assert hub.is_in_reach("timm/test_vit2.r160_in1k", 20), "it says that it does not have it"
        assert hub.download_hub_weights("timm/test_vit2.r160_in1k", 20) is None
        path = hub.download_hub_weights(TINY, 60)
    assert path is not None
    assert path == hub.find_hub_weights(TINY)
    assert path.read_bytes() == weights.read_bytes()
    model = build(ModelConfig(name=TINY, weights="imagenet"), classes=3, channels=3, size=96)
    kernel = model.get_parameter("blocks.0.attn.qkv.weight")
    assert torch.equal(kernel, hub.read_weights(str(weights)).tensors["blocks.0.attn.qkv.weight"])
    path.write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        build(ModelConfig(name=TINY, weights="imagenet"), classes=3, channels=3, size=96)


def test_a_hub_that_does_not_answer_costs_no_more_than_the_time_it_was_given(tmp_path: Path, monkeypatch):
    use_hub(monkeypatch, find_closed_port(), tmp_path)
    assert not hub.is_in_reach(TINY, 20)
    with swallow() as address:
        use_hub(monkeypatch, address, tmp_path)
        for ask in (hub.is_in_reach, hub.download_hub_weights):
            started = time.monotonic()
            assert not ask(TINY, 0.5)
            assert 0.4 < time.monotonic() - started < 4


def test_a_model_whose_weights_are_nowhere_says_what_to_do(tmp_path: Path, monkeypatch):
    use_hub(monkeypatch, find_closed_port(), tmp_path)
    with pytest.raises(ModelError, match=r"weights of timm/test_vit.r160_in1k could not be downloaded .* copy of the"):
        build(ModelConfig(name=TINY, weights="imagenet"), classes=3, channels=3, size=96)


@pytest.mark.parametrize("backbone", [INSTALLED, *BETTER], ids=lambda one: one.name)
def test_backbones_may_be_used_by_anyone_and_are_no_pickles(backbone):
    config = timm.get_pretrained_cfg(backbone.name.removeprefix("timm/"))
    assert config is not None
    assert config.license in ("apache-2.0", "mit", "bsd-3-clause")
    repository, file = hub._locate(backbone.name) or ("", "")
    assert repository.startswith(backbone.name)
    assert file == "model.safetensors"
    build(ModelConfig(name=backbone.name), classes=2, channels=3, size=5 * backbone.multiple)


# In a network namespace of its own, every packet is sent to a neighbour that is not there, questions for names too.
SWALLOW_ALL = """
ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up &&
ip addr add 10.9.9.1/24 dev v0 && ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev v0 &&
ip route add default via 10.9.9.2 && exec "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("address", ["https://huggingface.co", "https://192.0.2.1"])
def test_a_network_that_swallows_packets_and_names_costs_seconds(address: str, monkeypatch):
    script = "import time; from classifier.models import hub; "
    script += f"hub.find_hub_weights({TINY!r}); t = time.monotonic(); "  # the imports are not counted
    script += f"print(hub.is_in_reach({TINY!r}, 2.5), time.monotonic() - t)"
    inside = ["unshare", "-rn", "sh", "-c", SWALLOW_ALL, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    done = subprocess.run(
        [*inside, sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    answer, seconds = done.stdout.split()
    assert answer == "False"
    assert float(seconds) < 5
