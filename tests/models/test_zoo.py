"""torchvision's classifiers: all are listed, all adapt. Large ones run on PyTorch's meta device (shapes only)."""

import copy

import pytest
import torch

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models import ZOO, build, factory, head_parameter_names, zoo


@pytest.fixture(autouse=True, scope="module")
def _regnet_widths_on_the_cpu():
    """torchvision computes a RegNet's widths with tensors, which must have values."""
    from torchvision.models import regnet

    original = regnet.BlockParams.from_init_params

    def from_init_params(*args, **kwargs):
        with torch.device("cpu"):
            return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regnet.BlockParams, "from_init_params", from_init_params)
        yield


def build_on_meta(name: str, *, size: int, channels: int, classes: int = 7, **settings):
    """Return the model and its logits, both on the meta device."""
    config = ModelConfig(name=name, **settings)
    with torch.device("meta"):
        model = zoo.build(config, classes=classes, channels=channels, size=size)
        return model, factory.forward_on_meta(model, channels, size)


def build_seeded(name: str, *, size: int, channels: int = 3, classes: int = 4, **settings):
    torch.manual_seed(0)
    return build(ModelConfig(name=name, **settings), classes=classes, channels=channels, size=size)


def test_list_equals_torchvisions():
    from torchvision import models

    assert set(ZOO) == set(models.list_models(module=models))
    assert len(ZOO) == len(set(ZOO)) == 80


@pytest.mark.parametrize("name", ZOO)
def test_every_model_adapts_to_small_greyscale_images(name):
    model, logits_NK = build_on_meta(name, size=32, channels=1)
    assert logits_NK.shape == (2, 7)
    heads = head_parameter_names(model)
    assert heads
    assert all(7 in model.get_parameter(head).shape for head in heads)
    model.load_state_dict(dict(model.state_dict()), assign=True)  # plain tensors, as from a .safetensors file


FAMILIES = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5"),
    *("squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32"),
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (224, 3)])
def test_each_family_accepts_odd_and_large_images(name, size, channels):
    assert build_on_meta(name, size=size, channels=channels)[1].shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 32), ("mobilenet_v3_small", 28), ("shufflenet_v2_x0_5", 32), ("squeezenet1_1", 32)],
)
def test_forward_and_backward_on_the_cpu(name, size):
    model = build_seeded(name, size=size, channels=1)
    model(torch.randn(2, 1, size, size)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    twin = copy.deepcopy(model).eval()
    assert twin(torch.randn(1, 1, size, size)).shape == (1, 4)


def test_auxiliary_heads_give_outputs_only_in_training():
    model = build_seeded("googlenet", size=32)
    outputs = model(torch.randn(2, 3, 32, 32))
    assert isinstance(outputs, tuple)
    assert [o.shape for o in outputs] == [(2, 4)] * 3
    assert {"fc.weight", "aux1.fc2.weight", "aux2.fc2.bias"} < head_parameter_names(model)
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(("size", "outputs"), [(32, 1), (96, 1), (299, 2)])
def test_inception_has_its_auxiliary_head_from_299_pixels(size, outputs):
    with torch.device("meta"):
        model = zoo.build(ModelConfig(name="inception_v3"), classes=4, channels=3, size=size)
        result = model(torch.empty(2, 3, size, size))
    assert len(result) == 2 if outputs == 2 else result.shape == (2, 4)
    assert ("AuxLogits.fc.weight" in head_parameter_names(model)) == (outputs == 2)


@pytest.mark.parametrize(
    ("stem", "size", "weights", "is_small"),
    [
        ("auto", 64, None, True),
        ("auto", 65, None, False),
        ("small", 224, None, True),
        ("original", 32, None, False),
        ("auto", 32, "imagenet", False),  # the weights are for the original stem
    ],
)
def test_choice_of_stem(stem, size, weights, is_small):
    config = ModelConfig(name="resnet18", stem=stem, weights=weights)
    with torch.device("meta"):
        model = zoo.build(config, classes=4, channels=3, size=size)
    assert zoo.uses_small_stem(config, size) is is_small
    assert model.get_parameter("conv1.weight").shape[-1] == (3 if is_small else 7)


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5"]
)
def test_small_stem_keeps_the_resolution(name):
    """32 pixels end in maps of 4 x 4, where the original stem leaves 1 x 1."""
    model, map_sizes = build_on_meta(name, size=32, channels=3)[0], set()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: map_sizes.add(output.shape[-1]))
    model(torch.empty(2, 3, 32, 32, device="meta"))
    assert min(map_sizes - {1}) == 4  # squeeze-and-excitation has maps of 1 x 1


@pytest.mark.parametrize(("name", "size", "fits"), [("vit_b_16", 100, "96 or 112"), ("maxvit_t", 100, "96 or 128")])
def test_image_size_that_patches_do_not_divide_suggests_sizes_that_work(name, size, fits):
    with pytest.raises(ModelError, match=fits):
        build_seeded(name, size=size)


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", None), ("mobilenet_v2", "classifier.0"), ("vgg11", "classifier.2")]
)
def test_dropout_before_the_head_is_replaced(name, layer):
    def head_dropout(dropout: float) -> float:
        with torch.device("meta"):
            model = zoo.build(ModelConfig(name=name, dropout=dropout), classes=4, channels=3, size=32)
        return model.get_submodule(layer).p if layer else getattr(model.fc, "p", 0.0)  # pyright: ignore

    assert head_dropout(0.0) == 0.0
    assert head_dropout(0.3) == 0.3


def test_new_first_layer_keeps_the_output_variance():
    images_NCHW = torch.randn(64, 3, 16, 16)
    old = torch.nn.Conv2d(3, 256, 7, padding=3, bias=False)
    torch.nn.init.kaiming_normal_(old.weight, mode="fan_out")
    new = zoo.copy_conv(old, in_channels=1, kernel_size=(3, 3), padding=(1, 1))
    ratio = new(images_NCHW[:, :1])[..., 4:-4, 4:-4].std() / old(images_NCHW)[..., 4:-4, 4:-4].std()
    assert 0.9 < ratio < 1.1
