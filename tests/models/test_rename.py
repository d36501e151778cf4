"""Foreign state dicts: every tensor gets the model's name, and real weights classify real photographs."""

import pytest
import torch

from classifier.config.sections import ModelConfig
from classifier.models import build
from classifier.models.installed_weights import find_installed_weights
from classifier.models.rename import convert_state_dict

# How efficientnet_pytorch builds EfficientNet-Lite0: blocks per stage, and a block's layers in order.
STAGES = [1, 2, 2, 3, 3, 4, 1]
FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OTHER = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}


def as_melas(name: str) -> str:
    """timm's parameter name -> the name in efficientnet_pytorch."""
    parts = name.split(".")
    if parts[0] != "blocks":
        return ".".join([ENDS[parts[0]], *parts[1:]])
    stage, block = int(parts[1]), int(parts[2])
    table = FIRST if stage == 0 else OTHER
    return ".".join(["_blocks", str(sum(STAGES[:stage]) + block), table[parts[3]], *parts[4:]])


def test_every_efficientnet_tensor_is_converted(tmp_path):
    torch.manual_seed(1)
    model = build(ModelConfig(name="timm/tf_efficientnet_lite0"), classes=9, channels=3, size=64)
    state = model.state_dict()
    foreign = {as_melas(name): tensor for name, tensor in state.items()}
    assert not set(foreign) & set(state)
    back = convert_state_dict(foreign, state)
    assert back.keys() == state.keys()
    assert all(back[name] is state[name] for name in state)
    torch.save(foreign, tmp_path / "w.pth")
    config = ModelConfig(name="timm/tf_efficientnet_lite0", weights=str(tmp_path / "w.pth"))
    twin = build(config, classes=9, channels=3, size=64)
    images_NCHW = torch.randn(2, 3, 64, 64)
    assert torch.equal(twin.eval()(images_NCHW), model.eval()(images_NCHW))


def test_prefixes_are_stripped_only_if_the_model_has_none():
    tensor = torch.zeros(1)
    assert convert_state_dict({"module.model.a": tensor, "module.model.b": tensor}, ["a", "b"]).keys() == {"a", "b"}
    assert convert_state_dict({"encoder.a": tensor}, ["encoder.a", "encoder.b"]).keys() == {"encoder.a"}
    assert convert_state_dict({"module.a": tensor, "b": tensor}, ["a", "b"]).keys() == {"module.a", "b"}


def test_old_densenet_names_are_converted():
    old = {"features.denseblock1.denselayer2.norm.1.weight": torch.zeros(1), "features.norm5.weight": torch.zeros(1)}
    new = convert_state_dict(old, [])
    assert new.keys() == {"features.denseblock1.denselayer2.norm1.weight", "features.norm5.weight"}


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_lite0"])
def test_real_weights_classify_real_photographs(name):
    """The installed ImageNet weights of EfficientNet-Lite0 on scikit-image's photographs."""
    data = pytest.importorskip("skimage.data")
    config = ModelConfig(name=f"timm/{name}", weights=str(find_installed_weights("timm/tf_efficientnet_lite0")))
    model = build(config, classes=1000, channels=3, size=224).eval()
    photographs = {"chelsea": {281, 282, 285}, "coffee": {967, 968}, "rocket": {657, 744}}  # cats; coffee; missiles
    for photograph, classes in photographs.items():
        image_NCHW = torch.from_numpy(getattr(data, photograph)().copy()).permute(2, 0, 1)[None].float()
        crop = min(image_NCHW.shape[2:])
        top, left = ((length - crop) // 2 for length in image_NCHW.shape[2:])
        square_NCHW = image_NCHW[..., top : top + crop, left : left + crop]
        square_NCHW = torch.nn.functional.interpolate(square_NCHW, (224, 224), mode="bicubic", antialias=True)
        with torch.no_grad():
            logits_NK = model((square_NCHW - 127) / 128)
        assert int(logits_NK.argmax()) in classes, photograph
