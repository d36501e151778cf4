"""A bundle is a repository of the Hugging Face hub as it is, and comes back from there; timm reads its networks."""

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from timm.data.config import resolve_model_data_config

from classifier.bundle import bundle
from classifier.bundle.predictor import Predictor
from classifier.data.dataset import Split
from classifier.errors import RunError
from classifier.report import model_card
from tests.bundle.test_bundle import dataset as dataset  # a fixture
from tests.bundle.test_bundle import experiment_with, made
from tests.fake_hub import COMMIT, find_closed_port, serve_repository, use_hub
from tests.report.run_files import write_run


def test_a_bundle_comes_back_from_the_hub_without_anything_else_of_its_repository(dataset, tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    bundle.save(*made(experiment_with(dataset), dataset), folder)
    (folder / "setup.py").write_text("raise SystemExit")
    with serve_repository("ann/noise", folder) as address:
        use_hub(monkeypatch, address, tmp_path / "cache")
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        found = bundle.find("hf://ann/noise")
        assert bundle.find(Path("hf://ann/noise")) == found
        with pytest.raises(RunError, match="hf://ann/else: the hub has no such repository"):
            bundle.find("hf://ann/else")
    assert sorted(path.name for path in found.iterdir()) == ["bundle.json", "model.safetensors"]
    assert found.name == COMMIT
    images = [*dataset.validation.images_NCHW[:4, 0].numpy()]
    assert (Predictor(found)(images) == Predictor(folder)(images)).all()
    with pytest.raises(RunError, match="hf://ann/noise is in the hub, and nothing is written there"):
        bundle.update_scores("hf://ann/noise", "test", None)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hf://ann", "is no address of a bundle: write hf://OWNER/NAME"),
        ("hf://ann/../noise", "is no address of a bundle"),
        ("hf://ann/noise", "cannot be downloaded"),
    ],
)
def test_what_cannot_be_downloaded_is_said_in_a_sentence(address, reason, tmp_path, monkeypatch):
    use_hub(monkeypatch, closed := find_closed_port(), tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", closed)
    with pytest.raises(RunError, match=reason):
        bundle.find(address)


def test_timm_builds_its_network_from_the_folder(dataset, tmp_path):
    """Grey images, at a size of their own, and classes with names."""

    def enlarge(split: Split) -> Split:
        return dataclasses.replace(split, images_NCHW=split.images_NCHW[:].repeat(1, 1, 4, 4))

    validation = enlarge(dataset.validation)
    larger = dataclasses.replace(dataset, train=enlarge(dataset.train), validation=validation)
    about, model = made(experiment_with(larger, **{"model.name": "timm/test_convnext.r160_in1k"}), larger)
    bundle.save(about, model, tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert config["label_names"] == list(about.class_names)
    again = timm.create_model(f"local-dir:{tmp_path / 'bundle'}", pretrained=True).eval()
    preparation = resolve_model_data_config(again)
    assert preparation["input_size"] == (1, about.size, about.size)
    assert preparation["mean"] == pytest.approx(about.mean)
    images_NCHW = validation.images_NCHW[:].float() / 255
    normalised_NCHW = (images_NCHW - about.mean[0]) / about.std[0]
    with torch.inference_mode():
        torch.testing.assert_close(again(normalised_NCHW), model.eval()(normalised_NCHW))


def test_the_card_in_the_bundle_has_a_header_for_the_hub(tmp_path):
    folder = write_run(tmp_path / "run", ["cat", "dog"])
    about = bundle.read(folder)
    hostile = dataclasses.replace(about, dataset=about.dataset | {"name": "a: b\n---\nlicense: mit"})
    model_card.write(folder, hostile, 0, "validation")
    _, header, card = (folder / "bundle" / "README.md").read_text().split("---\n", 2)
    assert card == (folder / "model_card.md").read_text()
    data = yaml.safe_load(header)
    assert data["pipeline_tag"] == "image-classification"
    assert "license" not in data
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": round(about.scores["validation"]["accuracy"], 4)}
