"""The training loop: the same weights after interrupts and on several workers, and clear errors."""

import gc
import itertools
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.errors import ConfigError, DataError, DivergedError
from classifier.runtime.distributed import ProcessGroup, init_process_group
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import Epoch, fit
from classifier.training.resolve import resolve
from classifier.training.state import TrainState
from tests.conftest import worker_processes

SMALL = {
    "model.name": "cnn",
    "train.epochs": 2,
    "train.precision": "fp32",
    "train.threads": 1,
    "data.batch": 128,
    "schedule.warmup": 0.5,
}


# Adam divides by gradients that may be near zero, and so makes much of rounding: to compare sums needs plain steps.
SGD = {"optimizer__name": "sgd", "optimizer__lr": 0.01, "optimizer__weight_decay": 5e-4}


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().data)


def small(dataset, **changes) -> Experiment:
    return resolve(Experiment().override_all(SMALL | {k.replace("__", "."): v for k, v in changes.items()}), dataset)


def weights_of(epochs) -> dict[str, torch.Tensor]:
    last = list(epochs)[-1]
    return {name: value.clone() for name, value in last.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def stop_at(step: int):
    """Request a stop after that many steps."""
    polls = itertools.count(1)
    return lambda: next(polls) >= step


def test_fit_learns(digits):
    *_, last = fit(small(digits, train__epochs=4), digits)
    assert isinstance(last, Epoch)
    assert last.validation is not None
    assert (last.number, last.stopped) == (4, None)
    assert last.validation["accuracy"] > 0.85
    assert last.step == 4 * loader.steps_per_epoch(len(digits.train), 128)
    assert last.row()["validation_accuracy"] == last.validation["accuracy"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer__name": "adamw", "optimizer__lr": 1e-3, "optimizer__ema": 0.9, "model__dropout": 0.3},
        {"schedule__name": "plateau", "augment__mixup": 0.2, "optimizer__accumulate": 2, "data__batch": 64},
        {
            "model__name": "resnet9_16",
            "optimizer__name": "lamb",
            "optimizer__layer_decay": 0.9,
            "optimizer__ema": 0.9,
            "schedule__size_from": 0.5,
            "loss__name": "bce",
        },
    ],
    ids=["sgd", "adamw, ema, dropout", "plateau, mixup, accumulate", "lamb, layer decay, ema, growing images, bce"],
)
@pytest.mark.parametrize("step", [3, 15])
def test_resumed_run_equals_an_uninterrupted_one(digits, tmp_path, changes, step):
    experiment = small(digits, **changes)
    uninterrupted = list(fit(experiment, digits))
    store = CheckpointStore(tmp_path)
    *_, partial = fit(experiment, digits, store=store, should_stop=stop_at(step))
    assert (partial.step, partial.stopped) == (step, "asked")
    latest = store.load_latest()
    assert latest is not None
    assert latest.step == step
    resumed = list(fit(experiment, digits, store=store))
    assert_same(weights_of(uninterrupted), weights_of(resumed))
    for name in ("train_loss", "train_accuracy", "validation", "lr", "step"):
        assert getattr(uninterrupted[-1], name) == getattr(resumed[-1], name), name


def test_finished_run_resumes_only_with_more_epochs(digits, tmp_path):
    experiment = small(digits)
    assert len(list(fit(experiment, digits, store=CheckpointStore(tmp_path)))) == 2
    assert list(fit(experiment, digits, store=CheckpointStore(tmp_path))) == []
    longer = experiment.override("train.epochs", 3)
    assert [epoch.number for epoch in fit(longer, digits, store=CheckpointStore(tmp_path))] == [3]


def test_accumulation_equals_the_larger_batch(digits):
    changes = SGD | {"model__norm": "none", "train__epochs": 1}
    whole = weights_of(fit(small(digits, **changes), digits))
    pieces = small(digits, **changes | {"data__batch": 32, "optimizer__accumulate": 4})
    for name, value in weights_of(fit(pieces, digits)).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5, msg=name)


def test_nonfinite_loss_stops_before_a_checkpoint(digits, tmp_path):
    experiment = small(digits, optimizer__lr=1e18, schedule__warmup=0.0)
    with pytest.raises(DivergedError, match=r"not finite since step \d+ of \d+.*--optimizer\.lr 1e\+17"):
        list(fit(experiment, digits, store=CheckpointStore(tmp_path)))
    assert CheckpointStore(tmp_path).load_latest() is None


def test_epoch_does_not_keep_the_train_state_alive(digits, tmp_path):
    """DDP uses threads of the process group, which aborts if they outlive it."""
    *_, last = fit(small(digits), digits, store=CheckpointStore(tmp_path))
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is TrainState]
    assert last.validation is not None


def test_patience_ends_a_run_without_improvement(digits):
    experiment = small(digits, train__epochs=50, train__patience=2, optimizer__lr=1e-12)
    assert len(list(fit(experiment, digits))) == 3


def test_time_limit_ends_a_run_with_a_validated_model(digits):
    began = time.monotonic()
    *_, last = fit(small(digits, train__epochs=100_000, train__minutes=0.02), digits)
    assert last.stopped == "train.minutes"
    assert time.monotonic() - began < 20


def test_best_epochs_are_marked(digits):
    epochs = list(fit(small(digits, train__epochs=4), digits))
    rows = [e.row() for e in epochs]
    scores = [(row["validation_accuracy"], -row["validation_loss"]) for row in rows]
    best = [scores[i] > max(scores[:i], default=(-1.0, 0.0)) for i in range(4)]
    assert [e.is_best for e in epochs] == [e.improves for e in epochs] == best
    last = list(fit(small(digits, train__epochs=4, train__keep="last"), digits))
    assert [e.improves for e in last] == best
    assert all(e.is_best for e in last)


def test_batch_larger_than_the_training_split_is_refused(digits):
    with pytest.raises(
        ConfigError, match=r"data\.batch 100000 is more than the \d+ training images.*--data\.batch 1024"
    ):
        small(digits, data__batch=100_000)


def test_best_epoch_without_validation_images_is_refused():
    dataset = data.load(Experiment().override("data.validation", 0.0).data)
    with pytest.raises(DataError, match="validation"):
        small(dataset)


def test_last_model_is_saved_without_validation_images():
    dataset = data.load(Experiment().override("data.validation", 0.0).data)
    epochs = list(fit(small(dataset, train__keep="last", train__epochs=2), dataset))
    assert [(epoch.validation, epoch.improves, epoch.is_best) for epoch in epochs] == [(None, False, True)] * 2
    for changes in ({"train__patience": 3}, {"schedule__name": "plateau"}):
        with pytest.raises(DataError, match="no validation images"):
            small(dataset, train__keep="last", **changes)


def test_fp16_is_refused_on_a_cpu(digits):
    with pytest.raises(ConfigError, match="fp16"):
        small(digits, train__precision="fp16", train__device="cpu")


def _train_rank(rank: int, world: int, folder: str, changes: dict, steps: int) -> None:
    """Train as one of several processes, and save the loss of each step."""
    with init_process_group(backend="gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world):
        dataset = data.load(Experiment().data)
        experiment = small(dataset, **changes)
        losses = step_losses(experiment, dataset, ProcessGroup.current(torch.device("cpu")), steps)
    if rank == 0:
        torch.save(losses, Path(folder) / "losses.pt")
    threads = {task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").glob("*")}
    assert not any("gloo" in name for name in threads), "a thread that outlives Python aborts the process"


def step_losses(experiment: Experiment, dataset, group: ProcessGroup, steps: int) -> list[float]:
    """Return the mean loss of each of the first steps, over all ranks."""
    state = TrainState(experiment, dataset, group)
    losses = []
    while len(losses) < steps:
        epoch, start = divmod(state.step, state.steps_per_epoch)
        state.begin_epoch(epoch)
        for batch in loader.batches(
            dataset.train,
            batch=state.batch,
            seed=0,
            epoch=epoch,
            start=start,
            rank=group.rank,
            world=group.world_size,
        ):
            state.reset_sums()
            state.train_step(batch, epoch)
            loss, _, count, _ = group.all_reduce_sum(state.sums.clone()).tolist()
            losses.append(loss / count)
            if len(losses) == steps:
                break
    return losses


@pytest.mark.long
@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize(("world", "batch"), [(2, 127), (3, 2)])
def test_several_workers_have_the_losses_of_one(digits, tmp_path, norm, world, batch):
    """Shards may differ in size, or (3 workers, 2 images) be empty: gradients are weighted by counts."""
    changes = SGD | {"model__name": "resnet9_16", "model__norm": norm, "data__batch": batch}
    context = worker_processes()
    workers = [context.Process(target=_train_rank, args=(r, world, str(tmp_path), changes, 20)) for r in range(world)]
    for worker in workers:
        worker.start()
    alone = step_losses(small(digits, **changes), digits, ProcessGroup(), 20)
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    together = torch.load(tmp_path / "losses.pt")
    assert together == pytest.approx(alone, rel=1e-4)
    assert alone[0] != pytest.approx(alone[-1], rel=1e-2)


def reproducible_rows(epochs: list[Epoch]) -> list[dict]:
    """The history rows without times."""
    return [
        {k: v for k, v in e.row().items() if k not in ("seconds", "images_per_second", "input_wait")} for e in epochs
    ]


def _resume_rank(rank: int, world: int, folder: str, changes: dict, steps: list[int]) -> None:
    """Train as one of several processes with checkpoints inside epochs, and resume from some of them."""
    with init_process_group(backend="gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world):
        group, dataset, saved = (
            ProcessGroup.current(torch.device("cpu")),
            data.load(Experiment().data),
            Path(folder, "saved"),
        )
        experiment = small(dataset, **changes)
        uninterrupted = list(fit(experiment, dataset, group=group, store=CheckpointStore(saved, keep=100)))
        for step in steps:
            folder_from_step = Path(folder, f"from-{step}")
            if rank == 0:
                shutil.copytree(saved / f"step-{step:08d}", folder_from_step / f"step-{step:08d}")
            group.broadcast(None)
            resumed = list(fit(experiment, dataset, group=group, store=CheckpointStore(folder_from_step)))
            assert reproducible_rows(resumed) == reproducible_rows(uninterrupted)[-len(resumed) :]
            assert_same(weights_of(uninterrupted), weights_of(resumed))
    if rank == 0:
        torch.save(weights_of(uninterrupted), Path(folder) / "weights.pt")


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [{"model__norm": "batch", "optimizer__ema": 0.9}, {"model__norm": "batch"}, SGD | {"model__norm": "none"}],
    ids=["averaged", "batch norm", "plain"],
)
def test_two_workers_resume_inside_an_epoch(digits, tmp_path, changes):
    """Bit for bit as uninterrupted; a single worker, from a checkpoint of two, gives the same up to rounding."""
    changes = {"model__name": "resnet9_16", "checkpoint__steps": 4, "augment__policy": "none"} | changes
    context = worker_processes()
    given = (2, str(tmp_path), changes, [4, 11, 16])  # an epoch has 11 steps
    workers = [context.Process(target=_resume_rank, args=(rank, *given)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    saved = {p.name[-2:] for p in (tmp_path / "saved").iterdir()}
    # A checkpoint that is due while another is being written is skipped.
    assert {"04", "11", "16", "22"} <= saved <= {"04", "08", "11", "12", "16", "20", "22"}
    if changes["model__norm"] == "none":
        shutil.copytree(tmp_path / "saved" / "step-00000004", tmp_path / "alone" / "step-00000004")
        alone = weights_of(fit(small(digits, **changes), digits, store=CheckpointStore(tmp_path / "alone")))
        for name, value in torch.load(tmp_path / "weights.pt").items():
            torch.testing.assert_close(
                alone[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_checkpoint_inside_an_epoch_is_written_in_the_background(digits, tmp_path, monkeypatch):
    """The copy is of its own step, however slow the disk; no second write starts before the first is done."""
    slow, commit = threading.Event(), CheckpointStore.commit

    def commit_slowly(store, checkpoint):
        assert slow.wait(30)
        return commit(store, checkpoint)

    monkeypatch.setattr(CheckpointStore, "commit", commit_slowly)
    experiment = small(digits, checkpoint__steps=1, train__epochs=1)
    uninterrupted = list(fit(experiment, digits))
    steps = itertools.count(1)

    def on_step(_) -> None:  # called by the training, which therefore has not waited
        if next(steps) == 5:
            slow.set()

    monkeypatch.setattr("classifier.training.loop.Throughput.should_report", lambda _: True)
    list(fit(experiment, digits, store=CheckpointStore(tmp_path, keep=100), on_step=on_step))
    assert min(tmp_path.iterdir()).name == "step-00000001"
    assert not (tmp_path / "step-00000002").exists()
    for later in sorted(tmp_path.iterdir())[1:]:
        shutil.rmtree(later)
    assert_same(weights_of(uninterrupted), weights_of(fit(experiment, digits, store=CheckpointStore(tmp_path))))


def test_should_save_writes_a_checkpoint_in_the_background(digits, tmp_path):
    polls = itertools.count(1)
    experiment = small(digits, train__epochs=1)
    uninterrupted = list(fit(experiment, digits, store=CheckpointStore(tmp_path), should_save=lambda: next(polls) == 5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000011"]
    shutil.rmtree(tmp_path / "step-00000011")
    assert_same(weights_of(uninterrupted), weights_of(fit(experiment, digits, store=CheckpointStore(tmp_path))))
