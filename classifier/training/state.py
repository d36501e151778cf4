"""What changes while a run trains, and the one function that changes the weights.

What image comes when and how it is augmented is a function of (seed, epoch, place in the epoch), dropout of (seed,
step, rank): so a checkpoint holds no random state, and a resumed run equals an unbroken one.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifier import models
from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.inference.scorer import Scorer
from classifier.runtime import counter_rng as counter
from classifier.runtime.distributed import ProcessGroup
from classifier.training import losses, optimizers, schedule
from classifier.training.checkpoint import Checkpoint
from classifier.training.ema import ModelEMA
from classifier.training.feature_cache import FeatureCache


class TrainState:
    """Weights, optimizer and counters of one run on one rank. features: where what a frozen backbone sees is kept."""

    def __init__(
        self, experiment: Experiment, dataset: Dataset, group: ProcessGroup, features: Path | None = None
    ) -> None:
        self.experiment, self.dataset, self.group, self.features = experiment, dataset, group, features
        self.device = group.device
        torch.manual_seed(experiment.seed)
        self.model = build_model(experiment, dataset).to(self.device)
        if experiment.train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = optimizers.build(
            experiment.optimizer,
            self.model,
            head_names=models.head_names(self.model),
            is_pretrained=experiment.model.weights is not None,
            dtype=torch.bfloat16 if experiment.train.precision == "bf16" else torch.float32,
        )
        counts_K = torch.bincount(dataset.train.labels_N, minlength=len(dataset.class_names))
        self.loss = losses.build(experiment.loss, class_counts_K=counts_K.to(self.device))
        decay = experiment.optimizer.ema
        self.ema = ModelEMA(self.model, decay) if decay is not None else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=experiment.train.precision == "fp16")
        self.plateau = schedule.Plateau(experiment.schedule, metric=experiment.train.metric)
        self.scorer = Scorer.of(experiment, dataset, self.device)
        self.batch = experiment.data.batch * experiment.optimizer.accumulate
        self.steps_per_epoch = loader.steps_per_epoch(len(dataset.train), self.batch)
        self.steps = self.steps_per_epoch * experiment.train.epochs
        self.step = 0  # updates made
        self.lr = 0.0
        self.seconds = 0.0  # spent training, validation left out, earlier processes of the run counted in
        self.best: tuple[float, float] | None = None
        self.best_epoch = 0
        self.network: nn.Module = self.model
        self.is_backbone_frozen: bool | None = None
        self.feature_cache: FeatureCache | None = None
        self.reset_sums()

    @property
    def eval_model(self) -> nn.Module:
        """The model to validate and keep: the average, where there is one."""
        return self.ema.model if self.ema is not None else self.model

    def reset_sums(self) -> None:
        """Begin an epoch's account: loss, hits, images, the first step whose loss was not finite or -1; the order."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no float64
        self.sums = torch.tensor([0.0, 0.0, 0.0, -1.0], dtype=dtype, device=self.device)
        self.trace = torch.zeros(1, dtype=torch.int64)

    def begin_epoch(self, epoch: int) -> Split:
        """Freeze or thaw the backbone; wrap the model anew when that changes which gradients are exchanged.

        The training images for the epoch's loader.
        """
        config = self.experiment.model
        until = math.inf if config.freeze_epochs is None else config.freeze_epochs
        frozen = config.freeze == "backbone" and epoch < until
        if frozen != self.is_backbone_frozen:
            if frozen or self.is_backbone_frozen:
                models.freeze(self.model, frozen)
            self.is_backbone_frozen, self.feature_cache = frozen, None
            if frozen and self.experiment.views:
                self.feature_cache = FeatureCache(self.experiment, self.dataset, self.model, self.scorer, self.features)
            self.network = self.group.wrap(self.feature_cache.head if self.feature_cache else self.model)
            if self.experiment.train.compile:
                self.network.compile()
        return self.feature_cache.part(epoch) if self.feature_cache else self.dataset.train

    def end_epoch(self, epoch: int) -> None:
        """Every rank has come to the end of the epoch."""
        if self.feature_cache:
            self.feature_cache.close(epoch, self.group)

    def train_step(self, batch: loader.Batch, epoch: int) -> None:
        """The only function that changes weights: one step on one global batch, of which this rank has its shard."""
        experiment = self.experiment
        scale, momentum = schedule.scale_at(
            experiment.schedule,
            step=self.step,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            falls=self.plateau.falls,
        )
        self.lr = experiment.optimizer.lr * scale
        optimizers.set_lr(self.optimizer, self.lr, momentum)
        torch.manual_seed((experiment.seed * 1_000_003 + self.step) * 4099 + self.group.rank)
        self.optimizer.zero_grad(set_to_none=True)
        self.network.train()
        if self.is_backbone_frozen and not self.feature_cache:
            models.freeze(self.model, True)  # train() has woken the frozen batch norms
        *others, last = _pieces(batch, experiment.optimizer.accumulate)
        for piece in others:  # only the last piece's backward pass exchanges gradients between the ranks
            with self.group.no_sync(self.network):
                self._backward(piece, epoch)
        self._backward(last, epoch)
        if experiment.optimizer.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), experiment.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.trace += loader.trace(batch)  # wraps, as it must
        if self.ema is not None:
            self.ema.update(self.model, self.step)

    def _backward(self, batch: loader.Batch, epoch: int) -> None:
        """Add the batch's gradients, and its figures to the sums."""
        count = len(batch.labels_N)
        if count == 0:  # a rank without images still takes part in the exchange of gradients, with weight zero
            batch = _blank(batch, self.dataset)
        labels_N = batch.labels_N.to(self.device, non_blocking=True)
        if self.feature_cache:
            outputs, targets = self.feature_cache.answers(self.network, self.feature_cache.of(batch, epoch)), labels_N
        else:
            outputs, targets = self._seen(batch, labels_N, epoch)
        losses_N = self.loss(outputs, targets)
        # The ranks' gradients are averaged: so this makes them the sum over all images, divided by their number.
        weight = self.group.world_size / batch.global_count if count else 0.0
        self.scaler.scale(losses_N.sum() * weight).backward()
        with torch.no_grad():
            logits_NK = outputs[0] if isinstance(outputs, tuple) else outputs
            loss = losses_N.sum(dtype=self.sums.dtype)
            if count:
                hits = (logits_NK.argmax(1) == labels_N).sum()
                self.sums[:3] += torch.stack([loss, hits.to(loss.dtype), torch.full_like(loss, count)])
            bad = ~torch.isfinite(loss) & (self.sums[3] < 0)
            self.sums[3] = torch.where(bad, float(self.step + 1), self.sums[3])

    def _seen(self, batch: loader.Batch, labels_N: Tensor, epoch: int) -> tuple[Any, Tensor]:
        """The network's outputs for augmented images, and what they should have been."""
        key, config = counter.key(self.experiment.seed, epoch), self.experiment.augment
        images_NCHW = batch.images_NCHW.to(self.device, non_blocking=True)
        positions_N = batch.positions_N.to(self.device, non_blocking=True)
        images_NCHW = policy.augment(images_NCHW, config, key=key, positions_N=positions_N)
        images_NCHW, targets = policy.mix_batch(
            images_NCHW, labels_N, config, classes=len(self.dataset.class_names), key=key, positions_N=positions_N
        )
        return self.scorer.forward(self.network, images_NCHW), targets

    def validate(self) -> dict[str, Any]:
        """The validation scores of the model to keep, on every rank."""
        if self.feature_cache:
            return self.feature_cache.score(self.eval_model, self.group)
        return self.scorer.score(self.eval_model, self.dataset.validation, self.group)

    def update_best(self, scores: dict[str, Any], number: int) -> bool:
        """Remember a validated epoch; true if its weights are the ones to keep. Of equal scores the lower loss wins."""
        metric = self.experiment.train.metric
        self.plateau.update(scores[metric])
        rank = (-scores["loss"] if metric == "loss" else scores[metric], -scores["loss"])
        if self.best is None or rank > self.best:
            self.best, self.best_epoch = rank, number
            return True
        return self.experiment.train.keep == "last"

    @property
    def is_over(self) -> bool:
        """All epochs are done, or train.patience is used up."""
        epoch, patience = self.step // self.steps_per_epoch, self.experiment.train.patience
        impatient = patience is not None and self.best is not None and epoch - self.best_epoch >= patience
        return self.step >= self.steps or impatient

    def checkpoint(self) -> Checkpoint | None:
        """All that `restore` needs, in copies of its own, on rank 0; every rank calls it, at the same step.

        The ranks' models are one but for the buffers (batch norm's running statistics), of which each has its own.
        """
        sums, buffers = self.group.all_reduce_sum(self.sums.clone()), self.group.all_gather(self._buffers())
        trace = self.group.all_reduce_sum(self.trace.clone())
        if not self.group.is_first:
            return None
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state_dict(),
            "average": self.ema.model.state_dict() if self.ema is not None else None,
            "buffers": buffers,
            "sums": sums,
            "trace": trace,
            "seconds": self.seconds,
            "best": self.best,
            "best_epoch": self.best_epoch,
        }
        about = {"epoch": self.step // self.steps_per_epoch, "dataset": self.dataset.fingerprint}
        return Checkpoint(self.step, self.model.state_dict(), state, about).copy_to_cpu()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where a checkpoint was taken, by as many ranks or by others."""
        state = checkpoint.state
        self.model.load_state_dict(checkpoint.weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.plateau.load_state_dict(state["plateau"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["average"])
        if buffers := state.get("buffers"):
            own = len(buffers) == self.group.world_size
            self._set_buffers(buffers[self.group.rank] if own else torch.stack(buffers).mean(0))
        if self.group.is_first:  # an unfinished epoch's sums are counted once
            self.sums = state["sums"].to(self.device)
            self.trace = state.get("trace", self.trace).cpu()
        self.seconds, self.best, self.best_epoch = state["seconds"], state["best"], state["best_epoch"]
        self.step = checkpoint.step

    def _own_buffers(self) -> list[Tensor]:
        """What each rank has of its own: the floating buffers of the model, and of its average."""
        models = [self.model] + ([self.ema.model] if self.ema is not None else [])
        return [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]

    def _buffers(self) -> Tensor:
        return torch.cat([torch.empty(0, device=self.device), *(b.flatten().float() for b in self._own_buffers())])

    def _set_buffers(self, vector: Tensor) -> None:
        own = self._own_buffers()
        for buffer, values in zip(own, vector.split([buffer.numel() for buffer in own]), strict=True):
            buffer.copy_(values.view_as(buffer))


def build_model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """The experiment's model for this data set, with its starting weights."""
    return models.build(
        experiment.model, classes=len(dataset.class_names), channels=dataset.channels, size=dataset.size
    )


def _pieces(batch: loader.Batch, count: int) -> list[loader.Batch]:
    """Cut a batch for gradient accumulation; the sizes differ by one at most."""
    names = ("images_NCHW", "labels_N", "positions_N", "indices_N")
    columns = zip(*(torch.tensor_split(getattr(batch, name), count) for name in names), strict=True)
    return [dataclasses.replace(batch, **dict(zip(names, piece, strict=True))) for piece in columns]


def _blank(batch: loader.Batch, dataset: Dataset) -> loader.Batch:
    """One image to compute with, where a shard has none."""
    part, position = dataset.train, torch.zeros(1, dtype=torch.int64)
    blank = {"images_NCHW": part.images_NCHW[:1], "labels_N": part.labels_N[:1]}
    return dataclasses.replace(batch, **blank, positions_N=position, indices_N=position)
