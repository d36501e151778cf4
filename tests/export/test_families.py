"""Networks of every kind export, and agree with their models."""

from pathlib import Path

import pytest

from classifier.export.folder import GateImages, export_bundle
from classifier.models import MODELS
from tests.export.conftest import make_bundle, make_dataset

# One of every family of torchvision, with the size of its images.
FAMILIES = {
    **dict.fromkeys(("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s"), 64),
    **dict.fromkeys(("googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"), 64),
    **dict.fromkeys(("regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1"), 64),
    **dict.fromkeys(("vgg11", "vgg11_bn", "wide_resnet50_2", "swin_t", "swin_v2_t"), 64),
    "inception_v3": 96,
    "maxvit_t": 224,
    "vit_b_16": 224,
}
TIMM = {"timm/tf_efficientnet_lite0": 64, "timm/vit_tiny_patch16_224": 224}


def export(name: str, size: int, folder: Path, kind: str = "onnx") -> float:
    """Return by how much probabilities of an export differ from those of an untrained model."""
    dataset = make_dataset(size, count=44)
    bundle = make_bundle(folder / "bundle", name, dataset)
    return export_bundle(bundle, kind, GateImages.select(dataset)).document["parity"]["max_difference"]


@pytest.mark.parametrize("name", ["cnn", "vit_tiny"])
def test_own_networks(name: str, tmp_path: Path) -> None:
    assert export(name, 24, tmp_path) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch_export"])
@pytest.mark.parametrize("name", MODELS)
def test_every_own_network(name: str, kind: str, tmp_path: Path) -> None:
    assert export(name, 28, tmp_path, kind) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [*FAMILIES.items(), *TIMM.items()])
def test_every_family(name: str, size: int, tmp_path: Path) -> None:
    assert export(name, size, tmp_path) < 1e-5
