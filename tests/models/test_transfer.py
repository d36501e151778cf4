"""Pretrained weights: read without executing code, matched by name and shape; the frozen backbone."""

import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError
from classifier.models import build, head_parameter_names, pretrained_statistics, set_frozen, transfer, zoo
from classifier.models.transfer import freeze_early_layers, number_layers
from classifier.models.weights_file import read_weights
from classifier.storage.atomic import file_sha256


def make(name: str = "resnet9_16", *, classes: int = 4, channels: int = 3, size: int = 32, **settings) -> nn.Module:
    return build(ModelConfig(name=name, **settings), classes=classes, channels=channels, size=size)


def trained(name: str = "resnet9_16", **settings) -> dict[str, torch.Tensor]:
    return {
        key: torch.randn(t.shape) if t.is_floating_point() else t
        for key, t in make(name, **settings).state_dict().items()
    }


def same(model: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_weights_file_round_trips(tmp_path, name):
    weights, file = trained(), tmp_path / name
    save_file(weights, file) if name.endswith("safetensors") else torch.save(weights, file)
    assert same(make(weights=str(file)), weights)
    config = ModelConfig(name="resnet9_16", weights=str(tmp_path / "gone.pth"))
    build(config, classes=4, channels=3, size=32, weights=False)  # a bundle's own weights follow


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": w, "optimizer": {"state": {}}},
        lambda w: {"model": {"state_dict": w}},
        lambda w: {"model_state_dict": w},
        lambda w: {"model": {"no": torch.zeros(1)}, "model_ema": w},
        lambda w: {f"module.{name}": tensor for name, tensor in w.items()},
        lambda w: {f"module._orig_mod.{name}": tensor for name, tensor in w.items()},
        lambda w: {"state_dict": {f"model.{name}": tensor for name, tensor in w.items()}},
    ],
)
def test_checkpoints_of_other_programs_are_unwrapped(tmp_path, wrap):
    weights = trained()
    torch.save(wrap(weights), tmp_path / "w.pth")
    assert same(make(weights=str(tmp_path / "w.pth")), weights)


def test_head_for_other_classes_is_newly_initialised_and_logged(tmp_path, caplog):
    weights = trained(classes=10)
    torch.save(weights, tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        model = make(classes=4, weights=str(tmp_path / "w.pth"))
    own, heads = model.state_dict(), head_parameter_names(model)
    assert own["head.weight"].shape[0] == 4
    assert all(torch.equal(own[name], weights[name]) for name in own if name not in heads)
    assert "newly initialised: head.bias, head.weight" in caplog.text


def test_rgb_kernels_are_summed_for_greyscale_and_expanded_back(tmp_path):
    """Greyscale images give the features that three equal channels give in the original."""
    weights = trained("resnet18", size=96)
    torch.save(weights, tmp_path / "w.pth")
    colour, grey = (make("resnet18", size=96, channels=c, weights=str(tmp_path / "w.pth")).eval() for c in (3, 1))
    images_NCHW = torch.randn(2, 1, 96, 96)
    maps = (colour.get_submodule("conv1")(images_NCHW.expand(-1, 3, -1, -1)), grey.get_submodule("conv1")(images_NCHW))
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-4)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    again = make("resnet18", size=96, weights=str(tmp_path / "grey.pth"))
    torch.testing.assert_close(
        again.get_submodule("conv1")(images_NCHW.expand(-1, 3, -1, -1)), maps[1], rtol=1e-3, atol=1e-4
    )


def test_position_embeddings_are_resized(tmp_path):
    weights = trained("vit_b_32", size=64)
    positions_1TD = weights["encoder.pos_embedding"]
    assert positions_1TD.shape[1] == 1 + 8 * 8  # the small stem's patches
    resized = transfer.resize_positions(positions_1TD, 1 + 16 * 16)
    assert resized is not None
    assert resized.shape == (1, 257, 768)
    assert torch.equal(resized[:, 0], positions_1TD[:, 0])
    constant = transfer.resize_positions(torch.ones(1, 49, 8), 64)
    assert constant is not None
    torch.testing.assert_close(constant, torch.ones(1, 64, 8))
    assert transfer.resize_positions(positions_1TD, 64) is None  # no class token there


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"state_dict": {"head.weight": e}}])
@pytest.mark.parametrize("is_zip", [True, False])
def test_file_that_would_execute_code_is_refused(tmp_path, wrap, is_zip):
    proof, file = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save(wrap(Evil(proof)), file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ModelError, match="could run code"):
        make(weights=str(file))
    assert not proof.exists()
    torch.load(file, weights_only=False)
    assert proof.exists(), "the file is harmless: this test proves nothing"


def test_bare_pickle_is_refused(tmp_path):
    proof, file = tmp_path / "executed", tmp_path / "evil.pth"
    file.write_bytes(pickle.dumps(Evil(proof)))
    with pytest.raises(ModelError):
        make(weights=str(file))
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", None, "no such file"),
        ("imagnet", None, "give imagenet, or a"),
        ("w.pth", b"", "w.pth"),
        ("w.pth", b"not a file of weights", "w.pth"),
        ("w.safetensors", b"\x08\0\0\0\0\0\0\0notjson!", "cannot be read"),
    ],
)
def test_missing_or_corrupted_file_is_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as error:
        make(weights=str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_file_without_named_tensors_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no named tensors"):
        make(weights=str(tmp_path / "w.pth"))


def test_weights_of_another_model_are_refused_with_an_example(tmp_path):
    torch.save(trained("cnn"), tmp_path / "cnn.pth")
    with pytest.raises(ModelError, match=r"fits \d+ of \d+ tensors of resnet18 .* it lacks conv1.weight"):
        make("resnet18", weights=str(tmp_path / "cnn.pth"))
    torch.save(trained("resnet9_32"), tmp_path / "wide.pth")
    with pytest.raises(ModelError, match=r"is \(32, 3, 3, 3\) there and \(16, 3, 3, 3\) here"):
        make("resnet9_16", weights=str(tmp_path / "wide.pth"))


def test_imagenet_weights_need_a_published_model():
    with pytest.raises(ModelError, match="resnet9_16 has no ImageNet weights"):
        make(weights="imagenet")


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t"])
def test_failed_download_message_says_how_to_fix_it(monkeypatch, name):
    def fail(*args, **kwargs):
        raise OSError("<urlopen error no route>")

    monkeypatch.setattr(zoo, "download_imagenet_weights", fail)
    monkeypatch.setattr(transfer.hub, "load_hub_weights", fail)
    with pytest.raises(ModelError, match=r"could not be downloaded .*no route.* a \.safetensors or \.pth file"):
        make(name, weights="imagenet")


def test_torchvision_weights_are_loaded(monkeypatch):
    """torchvision's default weights, as its own loader returns them, are loaded into the model."""
    from torchvision.models import ResNet18_Weights

    weights = trained("resnet18", size=96, classes=1000)
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **options: weights)
    model = make("resnet18", classes=4, size=32, weights="imagenet")
    assert torch.equal(model.get_parameter("conv1.weight"), weights["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet9_16", "mobilenet_v2", "timm/resnet10t"])
def test_frozen_backbone_does_not_change_until_unfrozen(name):
    model = make(name, classes=3)
    set_frozen(model, True)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    heads = head_parameter_names(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    loss = nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4) % 3)
    loss.backward()
    optimizer.step()
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == heads
    model.train()
    set_frozen(model, False)
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())
    model.eval()
    set_frozen(model, False)
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "timm/tf_efficientnet_lite0", "resnet9_16"])
def test_the_last_third_of_the_layers_is_trained(name):
    model = make(name, classes=3)
    layers = number_layers(model)
    assert layers.keys() == {name for name, _ in model.named_parameters()}
    freeze_early_layers(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert head_parameter_names(model) <= trained
    assert min(layers[name] for name in trained) > max(layers[name] for name in layers.keys() - trained)
    assert 0.2 < len({layers[name] for name in trained}) / len(set(layers.values())) < 0.5


@pytest.mark.parametrize(
    ("name", "weights", "channels", "means"),
    [
        ("resnet18", "imagenet", 3, (0.485, 0.456, 0.406)),
        ("resnet18", "imagenet", 1, (0.449,)),
        ("timm/tf_efficientnet_lite0", "w.pth", 3, (0.5, 0.5, 0.5)),
        ("timm/efficientnet_lite0", "w.pth", 3, (0.485, 0.456, 0.406)),
        ("resnet18", None, 3, None),
        ("resnet9_16", "w.pth", 3, None),
    ],
)
def test_statistics_of_published_weights(name, weights, channels, means):
    found = pretrained_statistics(ModelConfig(name=name, weights=weights), channels)
    assert found is None if means is None else found is not None and found[0] == pytest.approx(means)


def test_new_head_starts_at_zero(tmp_path):
    torch.save(trained("timm/resnet10t", classes=10), tmp_path / "w.pth")
    model = make("timm/resnet10t", classes=4, weights=str(tmp_path / "w.pth"))
    assert not model.get_parameter("fc.weight").any()
    assert not model.get_parameter("fc.bias").any()


NAMES = ("ant", "bee", "cat", "dog")


def make_named(file: Path, class_names: tuple[str, ...], caplog) -> tuple[nn.Module, str]:
    """The model for these classes, and what was said."""
    caplog.clear()
    config = ModelConfig(name="resnet9_16", weights=str(file))
    return build(config, classes=len(class_names), channels=3, size=32, class_names=class_names), caplog.text


@pytest.mark.parametrize("kind", ["metadata", "bundle"])
def test_head_is_kept_by_the_names_of_its_classes(tmp_path, caplog, kind):
    weights, file = trained(), tmp_path / "model.safetensors"
    save_file(weights, file, {"class_names": json.dumps(NAMES)} if kind == "metadata" else None)
    if kind == "bundle":
        files = {file.name: {"sha256": file_sha256(file)}}
        (tmp_path / "bundle.json").write_text(json.dumps({"class_names": NAMES, "files": files}))
    model, said = make_named(file, NAMES, caplog)
    assert same(model, weights)
    assert "head" not in said
    model, said = make_named(file, ("bee", "dog", "cat", "ant"), caplog)
    for name in ("head.weight", "head.bias"):
        assert torch.equal(model.get_parameter(name), weights[name][[1, 3, 2, 0]])
    assert "the head's classes are put in the order of these" in said
    for others in (("a", "b", "c", "d"), ("ant", "bee", "cat", "fox")):
        model, said = make_named(file, others, caplog)
        assert not model.get_parameter("head.weight").any()
        assert "its head is for other classes: this one starts anew" in said or others[0] == "ant"  # said once
        assert torch.equal(model.state_dict()["features.0.0.weight"], weights["features.0.0.weight"])


def test_class_names_of_other_programs_are_found(tmp_path, caplog):
    weights, names = trained(), ("cafe\u0301", "b", "c", "d")
    for saved in (
        {"class_names": [*names]},
        {"classes": names},
        {"class_to_idx": {"c": 2, names[0]: 0, "d": 3, "b": 1}},
    ):
        torch.save({"state_dict": weights, **saved}, tmp_path / "w.pth")
        model, said = make_named(tmp_path / "w.pth", ("c", "caf\u00e9", "b", "d"), caplog)
        assert torch.equal(model.get_parameter("head.weight"), weights["head.weight"][[2, 0, 1, 3]])
        assert "names no classes" not in said
    for odd in ({"class_to_idx": {"a": 0, "b": 0, "c": []}}, {"classes": 3}, {"class_to_idx": {"a": True, "b": 0}}):
        torch.save({"state_dict": weights, **odd}, tmp_path / "w.pth")
        assert read_weights(str(tmp_path / "w.pth")).class_names is None


def test_half_a_head_is_no_head(tmp_path, caplog):
    weights = trained()
    del weights["head.weight"]
    save_file(weights, tmp_path / "w.safetensors")
    model, _ = make_named(tmp_path / "w.safetensors", NAMES, caplog)
    assert not model.get_parameter("head.bias").any()


def test_head_without_names_is_kept_and_said(tmp_path, caplog):
    weights, file = trained(), tmp_path / "w.pth"
    torch.save(weights, file)
    (tmp_path / "bundle.json").write_text(json.dumps({"class_names": NAMES, "files": {"w.pth": {"sha256": "0"}}}))
    model, said = make_named(file, ("a", "b", "c", "d"), caplog)
    assert same(model, weights)
    assert "the file names no classes: its head of 4 is kept, as if they were these in this order" in said


class Allocating:
    def __reduce__(self):
        return (bytearray, (10**12,))


def referring_to_itself() -> dict:
    content: dict = {}
    content["state_dict"] = content
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (referring_to_itself(), "no named tensors"),
        ({"a": Allocating()}, "holds more than tensors"),
        ({"state_dict": {3: torch.zeros(2), "x": [torch.zeros(2)]}}, "no named tensors"),
        ({"w": torch.zeros(2, 2).to_sparse(), "m": torch.zeros(2, device="meta")}, "no named tensors"),
        ({"conv1.weight": torch.full((1,), float("nan")).expand(64, 3, 3, 3)}, "fits 0 of"),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_hostile_weights_end_in_a_sentence(tmp_path, content, message, is_zip):
    try:
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    except RuntimeError:
        pytest.skip("torch cannot save it in this format")
    with pytest.raises(ModelError, match=message) as error:
        make(weights=str(tmp_path / "w.pth"))
    assert "\n" not in str(error.value)


def test_pickle_that_ends_as_an_archive_is_checked_too(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"a": Allocating()}, file, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ModelError, match="holds more than tensors"):
        make(weights=str(file))


def test_archive_that_expands_is_refused(tmp_path):
    weights = trained()
    torch.save(weights | {"x": torch.zeros(5_000_000)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(tmp_path / "z.pth", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelError, match="expands to many times its size"):
        make(weights=str(tmp_path / "z.pth"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_archive_that_states_too_small_a_size_takes_little_memory(tmp_path, method):
    file = tmp_path / "w.pth"
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("w/data.pkl", bytes(1 << 26))
    raw = bytearray(file.read_bytes())
    size = raw.rindex(b"PK\1\2") + 24  # in the directory of the archive
    raw[size : size + 4] = (10).to_bytes(4, "little")
    file.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"corrupted|cannot be read"):
            make(weights=str(file))
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
    finally:
        tracemalloc.stop()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = trained()
    next(iter(weights.values())).view(-1)[0] = float("nan")
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="NaN or infinite"):
        make(weights=str(tmp_path / "w.pth"))


def test_tensor_larger_than_what_is_stored_of_it():
    terabyte = torch.zeros(1).expand(1, 10**9, 384)
    assert transfer.resize_positions(terabyte, 197) is None
