"""The loop of self-supervised pretraining: a generator of epochs, resumed from its checkpoints bit for bit."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.images.arrays import gather, select
from classifier.errors import DivergedError, RunError, in_short
from classifier.inference.features import extract_features
from classifier.inference.scorer import Scorer
from classifier.pretraining.images import PretrainingImages
from classifier.pretraining.methods import METHODS, Name
from classifier.pretraining.monitor import measure_neighbours, measure_rank
from classifier.pretraining.views import make_views
from classifier.runtime import cpu
from classifier.runtime.counter_rng import permutation
from classifier.runtime.threads import use_threads
from classifier.runtime.timing import Throughput, Timer
from classifier.training import optimizers, schedule
from classifier.training.checkpoint import AsyncCheckpointWriter, Checkpoint, CheckpointStore, PendingCheckpoint

KNOWN_IMAGES, ASKED_IMAGES = 4000, 1000
"""Of which the monitor computes features; half of the images are asked about where there are fewer."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the images, or a part of it. neighbours: accuracy, None without labels; rank: of the features.

    `commit` writes the epoch's checkpoint; requesting the next epoch calls it at the latest.
    """

    number: int
    step: int
    seconds: float
    lr: float
    loss: float
    neighbours: float | None
    rank: float
    images_per_second: float | None
    stopped: str | None
    model: nn.Module
    commit: Callable[[], None]

    def row(self) -> dict[str, Any]:
        """Return the epoch's line of history.jsonl, with the keys that trainings with labels have."""
        return {
            "epoch": self.number,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "lr": self.lr,
            "train_loss": self.loss,
            **dict.fromkeys(("train_accuracy", "validation_loss", "validation_accuracy", "validation_macro_f1")),
            "neighbours": self.neighbours,
            "rank": self.rank,
            "images_per_second": self.images_per_second,
        }


def pretrain(
    experiment: Experiment,
    images: PretrainingImages,
    model: nn.Module,
    method: Name,
    *,
    store: CheckpointStore | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Iterator[Epoch]:
    """Pretrain the model in place, from the store's newest complete checkpoint if it has one.

    experiment: resolved, its augmentation too. on_step: gets the steps that are done, and all. DivergedError when the
    loss is not finite; RunError if the checkpoint is that of another pretraining.
    """
    device = torch.device(experiment.train.device)
    cpu.setup(device.type)
    with use_threads(experiment.train.threads):
        state = _State(experiment, images, model, method, device)
        if store is not None and (checkpoint := store.load_latest()):
            state.restore(checkpoint)
        yield from _run_epochs(state, store, should_stop, on_step)


def _run_epochs(
    state: "_State",
    store: CheckpointStore | None,
    should_stop: Callable[[], bool],
    on_step: Callable[[int, int], None],
) -> Iterator[Epoch]:
    writer = AsyncCheckpointWriter(store) if store is not None else None
    settings = state.experiment
    limit, timer = settings.train.minutes, Timer(settings.checkpoint.minutes)
    throughput = Throughput(state.device)
    try:
        while state.step < state.steps:
            epoch, first_step = divmod(state.step, state.steps_per_epoch)
            if first_step == 0:
                state.losses = 0.0
            started, stopped = time.perf_counter(), None
            throughput.resume()
            for step in range(first_step, state.steps_per_epoch):
                throughput.count(state.train_step(epoch, step))
                on_step(state.step, state.steps)
                if should_stop():
                    stopped = "asked"
                elif limit is not None and state.seconds + time.perf_counter() - started > 60 * limit:
                    stopped = "train.minutes"
                if stopped:
                    break
                is_within = step + 1 < state.steps_per_epoch
                is_due = settings.checkpoint.steps is not None and state.step % settings.checkpoint.steps == 0
                if writer and is_within and not writer.is_busy and (is_due or timer.is_due()):
                    writer.submit(state.checkpoint())
            throughput.pause()
            seconds = time.perf_counter() - started
            state.seconds += seconds
            is_complete = state.step % state.steps_per_epoch == 0
            is_due = is_complete and ((epoch + 1) % settings.checkpoint.epochs == 0 or state.step == state.steps)
            checkpoint = state.checkpoint() if writer and (stopped or is_due) else None
            neighbours, rank = state.measure()
            commit = PendingCheckpoint(writer, checkpoint)
            yield Epoch(
                number=epoch + 1,
                step=state.step,
                seconds=seconds,
                lr=state.lr,
                loss=state.losses / (state.step - epoch * state.steps_per_epoch),
                neighbours=neighbours,
                rank=rank,
                images_per_second=throughput.images_per_second(),
                stopped=stopped,
                model=state.model,
                commit=commit,
            )
            commit()
            if stopped:
                return
    finally:
        if writer is not None:
            writer.close()


class _State:
    """All that changes while a method learns."""

    def __init__(
        self, experiment: Experiment, images: PretrainingImages, model: nn.Module, method: Name, device: torch.device
    ) -> None:
        self.experiment, self.images, self.model, self.device = experiment, images, model, device
        torch.manual_seed(experiment.seed)
        images_NCHW = images.images_NCHW
        self.scorer = Scorer(
            class_names=("", ""),
            size=images_NCHW.shape[-1],
            mean=images.mean,
            std=images.std,
            device=device,
            precision=experiment.train.precision,
        )
        model = model.to(device)
        features = extract_features(model, self.scorer, images_NCHW[:2]).shape[1]
        self.method = METHODS[method](model, features).to(device)
        self.optimizer = optimizers.build(
            experiment.optimizer,
            self.method,
            head_names=frozenset(),
            dtype=torch.bfloat16 if experiment.train.precision == "bf16" else torch.float32,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=experiment.train.precision == "fp16")
        self.steps_per_epoch = loader.steps_per_epoch(len(images_NCHW), experiment.data.batch)
        self.steps = self.steps_per_epoch * experiment.train.epochs
        self.step, self.lr, self.losses, self.seconds = 0, 0.0, 0.0, 0.0
        self._order_N, self._order_of = torch.empty(0), -1

    def train_step(self, epoch: int, step: int) -> int:
        """Take a step of an epoch; return its number of images."""
        seed, count = self.experiment.seed, len(self.images.images_NCHW)
        if self._order_of != epoch:
            self._order_N, self._order_of = permutation(count, seed, epoch), epoch
        low, high = loader.split_range(0, count, step, self.steps_per_epoch)
        indices_N = self._order_N[low:high]
        images_NCHW = gather(self.images.images_NCHW, indices_N).to(self.device)
        positions_N = torch.arange(low, high, device=self.device)
        mean, std = self.images.mean, self.images.std
        augment = self.experiment.augment
        views_NCHW = make_views(
            images_NCHW, augment, mean=mean, std=std, seed=seed, epoch=epoch, positions_N=positions_N
        )
        scale, momentum_shift = schedule.scale_at(
            self.experiment.schedule, step=self.step, steps=self.steps, steps_per_epoch=self.steps_per_epoch
        )
        self.lr = self.experiment.optimizer.lr * scale
        optimizers.set_lr(self.optimizer, self.lr, momentum_shift)
        torch.manual_seed((seed * 1_000_003 + self.step) * 4099)  # of dropout
        self.method.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.scorer.autocast():
            loss = self.method(views_NCHW)
        self.scaler.scale(loss).backward()
        if self.experiment.optimizer.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.method.parameters(), self.experiment.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.method.after_step(self.step / self.steps)
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is not finite since step {self.step} of {self.steps}: try --optimizer.lr "
                f"{self.experiment.optimizer.lr / 10:.2g}, --optimizer.clip 1 or --train.precision fp32"
            )
        self.losses += value
        return len(indices_N)

    def measure(self) -> tuple[float | None, float]:
        """Return the accuracy of nearest neighbours, if labels are known, and the effective rank of the features."""
        count = len(self.images.images_NCHW)
        drawn_N = permutation(count, self.experiment.seed, 0)
        asked = min(ASKED_IMAGES, count // 2)
        features_NF = self._extract(drawn_N[: asked + KNOWN_IMAGES])
        labels_N = self.images.labels_N
        rank = measure_rank(features_NF[:ASKED_IMAGES])
        if labels_N is None:
            return None, rank
        labels_N = labels_N[drawn_N[: asked + KNOWN_IMAGES]]
        return measure_neighbours(features_NF[asked:], labels_N[asked:], features_NF[:asked], labels_N[:asked]), rank

    def _extract(self, indices_N: Tensor) -> Tensor:
        return extract_features(self.model, self.scorer, select(self.images.images_NCHW, indices_N))

    def checkpoint(self) -> Checkpoint:
        """Copy what `restore` needs."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
            "seconds": self.seconds,
        }
        about = {"epoch": self.step // self.steps_per_epoch, "dataset": self.images.fingerprint}
        return Checkpoint(self.step, self.method.state_dict(), state, about).copy_to_cpu()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint. RunError if it is another pretraining's."""
        if checkpoint.about["dataset"] != self.images.fingerprint:
            raise RunError(
                f"{self.images.name} has other images than this pretraining began with: restore them, or start anew"
            )
        try:
            self.method.load_state_dict(checkpoint.weights)
            optimizers.load_state(self.optimizer, checkpoint.state["optimizer"])
            self.scaler.load_state_dict(checkpoint.state["scaler"])
            self.losses, self.seconds = checkpoint.state["losses"], checkpoint.state["seconds"]
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise RunError(
                f"the checkpoint of step {checkpoint.step} belongs to another pretraining ({in_short(error)}): delete "
                "it to resume from the one before, or start a new run"
            ) from error
        self.step = checkpoint.step
