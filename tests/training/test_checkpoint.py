import errno
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from classifier.errors import RunError
from classifier.models.weights_file import read_weights
from classifier.storage import atomic
from classifier.training.checkpoint import AsyncCheckpointWriter, Checkpoint, CheckpointStore


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}
    return Checkpoint(step, weights, {"best": (0.5, -1.0), "x": torch.ones(2)}, {"epoch": step, "dataset": "f00d"})


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_empty_store_has_no_checkpoint(store):
    assert store.load_latest() is None
    assert store.latest_manifest() is None


def test_round_trip(store):
    store.commit(checkpoint(3))
    latest = store.load_latest()
    assert latest.step == 3
    assert latest.about == {"epoch": 3, "dataset": "f00d"}
    assert torch.equal(latest.weights["w"], torch.full((3,), 3.0))
    assert latest.state["best"] == (0.5, -1.0)


def test_newest_is_loaded_and_old_ones_are_removed(store):
    (store.folder / "step-older").mkdir(parents=True)  # none of its own
    for step in (1, 2, 99_999_999, 100_000_000):
        store.commit(checkpoint(step))
    assert store.load_latest().step == 100_000_000
    assert sorted(p.name for p in store.folder.glob("step-*")) == ["step-100000000", "step-99999999", "step-older"]


@pytest.mark.parametrize("corruption", ["no manifest", "cut weights", "changed state", "no weights", "cut manifest"])
def test_corrupted_checkpoint_is_skipped_for_the_one_before(store, corruption):
    store.commit(checkpoint(1))
    folder = store.commit(checkpoint(2))
    if corruption == "no manifest":
        (folder / "manifest.json").unlink()
    elif corruption == "cut manifest":
        (folder / "manifest.json").write_text('{"format_version": 1, "st')
    elif corruption == "cut weights":
        data = (folder / "weights.safetensors").read_bytes()
        (folder / "weights.safetensors").write_bytes(data[:-1])
    elif corruption == "changed state":
        data = bytearray((folder / "state.pt").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "state.pt").write_bytes(data)
    else:
        (folder / "weights.safetensors").unlink()
    assert store.load_latest().step == 1
    assert store.latest_manifest()["step"] == 1


def test_incomplete_checkpoint_of_the_same_step_is_replaced(store):
    folder = store.commit(checkpoint(1))
    (folder / "manifest.json").unlink()
    store.commit(checkpoint(1))
    assert store.load_latest().step == 1


def test_unknown_format_is_refused_by_name(store):
    folder = store.commit(checkpoint(1))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(RunError, match=r"manifest\.json: format_version is 99.*reads 1 and 2.*update the package"):
        store.load_latest()


def values_like(value: Any) -> list[Any]:
    """Other values for a field of a manifest: of its type, out of range, of other types."""
    numbers = [value + 1, value - 1, -1, 10**12, float("nan"), 1.0 * value, True] if isinstance(value, int) else []
    texts = [value[:-1], "0" * len(value), "../" + value, ""] if isinstance(value, str) else []
    return [*numbers, *texts, None, [], {}, [value], {"a": value}, "x", 1e999]


def alterations(document: Any) -> Iterator[Any]:
    """The document with each of its fields altered, removed or renamed, at every depth."""
    items = document.items() if isinstance(document, dict) else ()
    for key, value in items:
        others = {other: inner for other, inner in document.items() if other != key}
        yield from (others, others | {f"{key}_": value})
        yield from (others | {key: changed} for changed in values_like(value) if changed != value)
        yield from (others | {key: changed} for changed in alterations(value))
    yield from ([], None, [document], "x", {})


def with_own_checksum(document: Any) -> Any:
    """What someone writes who can compute checksums."""
    if not isinstance(document, dict):
        return document
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return rest | {"sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


@pytest.mark.parametrize("is_first_format", [False, True])
def test_altered_manifests_are_skipped_for_the_one_before(store, caplog, is_first_format):
    """Whatever is altered, the newest intact checkpoint is loaded, and what was skipped is said."""
    older, newer = store.commit(checkpoint(1)), store.commit(checkpoint(2))
    path = newer / "manifest.json"
    text = path.read_text()
    if is_first_format:  # written by an earlier version: without a checksum of its own
        manifest = json.loads(text) | {"format_version": 1}
        del manifest["sha256"]
        text = json.dumps(manifest)
        path.write_text(text)
        assert store.load_latest().step == 2
    documents = [json.dumps(altered) for altered in alterations(json.loads(text))]
    documents += [json.dumps(with_own_checksum(altered)) for altered in alterations(json.loads(text))]
    rng = random.Random(0)
    for _ in range(200):
        position = rng.randrange(len(text))
        documents.append(text[:position] + chr(rng.randrange(1, 0x250)) + text[position + 1 :])
        documents.append(text[:position])
    documents += [
        "[" * 100_000,
        "1" * 10_000,
        " " * (2 << 20),
        "\ud800".encode("utf-8", "surrogatepass").decode("latin1"),
    ]
    intact = 0
    for document in documents:
        path.write_text(document, encoding="utf-8")
        caplog.clear()
        step = store.load_latest().step
        assert store.latest_manifest()["step"] == store.newest_step() == step
        assert step == 2 or f"step-{2:08d} (" in caplog.text, document
        intact += step == 2
    # A digit of the epoch or a letter of the fingerprint, where nothing else says what they were; and blanks.
    assert intact < (60 if is_first_format else 40), intact
    path.write_text("{}")
    (older / "manifest.json").write_text("[]")
    with pytest.raises(RunError, match=r"no intact checkpoint, step-00000002 \(.*step-00000001 \(.*delete that folder"):
        store.load_latest()
    assert store.newest_step() == -1


def replace_state(store: CheckpointStore, state: object) -> None:
    """Write an intact checkpoint with this state."""
    folder = store.commit(checkpoint(1))
    torch.save(state, folder / "state.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {"sha256": atomic.file_sha256(folder / "state.pt"), "bytes": (folder / "state.pt").stat().st_size}
    manifest["files"]["state.pt"] = listed
    (folder / "manifest.json").write_text(json.dumps(with_own_checksum(manifest)))


def test_loading_executes_no_code(store, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    replace_state(store, {"x": Evil()})
    with pytest.raises(RunError, match=r"cannot be loaded \(UnpicklingError: Weights only load failed.*delete it"):
        store.load_latest()
    assert not (tmp_path / "executed").exists()


class Allocating:
    def __reduce__(self):
        return (bytearray, (10**12,))


def nested(inner: object, depth: int = 30) -> object:
    """2^depth of it, in a small file."""
    return inner if depth == 0 else [nested(inner, depth - 1)] * 2


def referring_to_itself() -> list:
    state: list = []
    state.append(state)
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x": Allocating()}, "it contains .*bytearray"),
        ({"optimizer": referring_to_itself()}, "expands to many times"),
        ({"optimizer": nested({"lr": 0.1})}, "expands to many times"),
        ({"sums": torch.zeros(1).expand(10**12)}, "expands to many times"),
        ({"buffers": [torch.zeros(10**5)] * 1000}, "expands to many times"),
    ],
)
def test_state_that_takes_more_memory_than_its_file_is_refused(store, state, message):
    replace_state(store, state)
    with pytest.raises(RunError, match=rf"cannot be loaded \(.*{message}.*delete it"):
        store.load_latest()


def test_failing_disk_is_retried(store, monkeypatch, caplog):
    monkeypatch.setattr(atomic, "RETRY_PAUSES", (0.01,))
    errors = iter([OSError(errno.ENOSPC, "No space left on device")] * 3)

    def fail_three_times(tensors, path, **about):
        path.write_bytes(b"a part")
        if error := next(errors, None):
            raise error
        write_tensors(tensors, path, **about)

    write_tensors = atomic.write_tensors
    monkeypatch.setattr("classifier.training.checkpoint.write_tensors", fail_three_times)
    store.commit(checkpoint(1))
    assert store.load_latest().step == 1
    assert len(caplog.records) == 3
    assert "No space left on device" in caplog.text


def test_full_disk_is_reported_and_keeps_the_last_checkpoint(store, monkeypatch):
    monkeypatch.setattr(atomic, "RETRY_SECONDS", 0.0)
    store.commit(checkpoint(1))

    def fail(value, path):
        Path(path).write_bytes(b"a part")
        raise RuntimeError("[enforce fail at inline_container.cc:672]")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RunError, match=r"step-00000002 cannot be written \(the disk is full.*--resume"):
        store.commit(checkpoint(2))
    assert [p.name for p in store.folder.iterdir()] == ["step-00000001"]


def test_permanent_error_is_reported_at_once():
    def denied():
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(RunError, match=r"a/b cannot be written \(Permission denied\)"):
        atomic.retry_io(denied, "a/b")


def test_writer_raises_the_error_of_its_last_write(store, monkeypatch):
    monkeypatch.setattr(atomic, "RETRY_SECONDS", 0.0)
    writer = AsyncCheckpointWriter(store)
    writer.submit(checkpoint(1))
    monkeypatch.setattr("classifier.training.checkpoint._write", lambda *_: atomic.fsync(Path("/nowhere")))
    writer.submit(checkpoint(2))
    with pytest.raises(RunError, match="step-00000002 cannot be written"):
        writer.wait()
    writer.close()
    assert store.load_latest().step == 1


def test_weights_of_a_checkpoint_name_the_classes(store):
    named = Checkpoint(1, {"w": torch.ones(2)}, {}, {"epoch": 1, "dataset": "f00d"}, ("b\udce9", "a")).copy_to_cpu()
    folder = store.commit(named)
    assert read_weights(str(folder / "weights.safetensors")).class_names == ("b\udce9", "a")


def test_copy_to_cpu_does_not_change_with_the_model():
    weight = torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)
    copy = Checkpoint(1, {"w": weight}, {"optimizer": {"state": [{"m": weight}], "lr": (0.1,)}}, {}).copy_to_cpu()
    weight.zero_()
    assert copy.weights["w"].sum() == copy.state["optimizer"]["state"][0]["m"].sum() == weight.numel()
    assert copy.weights["w"].is_contiguous()
    assert copy.state["optimizer"]["lr"] == (0.1,)
