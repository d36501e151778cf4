import json

import pytest
import torch

from classifier.checkpoint import Checkpoint, Store
from classifier.errors import RunError


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}
    return Checkpoint(step, weights, {"best": (0.5, -1.0), "x": torch.ones(2)}, {"epoch": step})


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "checkpoints")


def test_an_empty_store_has_none(store):
    assert store.latest() is None
    assert store.latest_manifest() is None


def test_round_trip(store):
    store.commit(checkpoint(3))
    latest = store.latest()
    assert latest.step == 3
    assert latest.about == {"epoch": 3}
    assert torch.equal(latest.weights["w"], torch.full((3,), 3.0))
    assert latest.state["best"] == (0.5, -1.0)


def test_the_newest_is_taken_and_old_ones_are_pruned(store):
    for step in (1, 2, 9, 10):
        store.commit(checkpoint(step))
    assert store.latest().step == 10
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-00000009", "step-00000010"]


@pytest.mark.parametrize("damage", ["no manifest", "cut weights", "changed state", "no weights", "cut manifest"])
def test_a_damaged_one_is_passed_over_for_the_one_before(store, damage):
    store.commit(checkpoint(1))
    place = store.commit(checkpoint(2))
    if damage == "no manifest":
        (place / "manifest.json").unlink()
    elif damage == "cut manifest":
        (place / "manifest.json").write_text('{"format_version": 1, "st')
    elif damage == "cut weights":
        data = (place / "weights.safetensors").read_bytes()
        (place / "weights.safetensors").write_bytes(data[:-1])
    elif damage == "changed state":
        data = bytearray((place / "state.pt").read_bytes())
        data[len(data) // 2] ^= 1
        (place / "state.pt").write_bytes(data)
    else:
        (place / "weights.safetensors").unlink()
    assert store.latest().step == 1
    assert store.latest_manifest()["step"] == 1


def test_a_step_can_be_committed_again_over_an_unfinished_one(store):
    place = store.commit(checkpoint(1))
    (place / "manifest.json").unlink()
    store.commit(checkpoint(1))
    assert store.latest().step == 1


def test_an_unknown_format_is_refused_by_name(store):
    place = store.commit(checkpoint(1))
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(RunError, match=r"manifest\.json: format_version is 99.*reads 1"):
        store.latest()


def test_loading_executes_no_code(store, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    place = store.commit(checkpoint(1))
    torch.save({"x": Evil()}, place / "state.pt")
    from classifier.files import sha256_of

    manifest = json.loads((place / "manifest.json").read_text())
    manifest["files"]["state.pt"]["sha256"] = sha256_of(place / "state.pt")
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Exception, match=r"weights_only|Unsupported|GLOBAL"):
        store.latest()
    assert not (tmp_path / "executed").exists()
