"""Everything that changes during training, and the one function that changes the weights.

The order and augmentation of images depend only on (seed, epoch, position in the epoch), dropout on (seed, step, rank):
so a checkpoint holds no random state, and a resumed run equals an uninterrupted one.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifier import models
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.data.labels.label_sets import count_labels
from classifier.errors import ConfigError, RunError, in_short
from classifier.inference.scorer import Scorer, find_hits, gather_targets
from classifier.models import factory
from classifier.models.fusion.fusion_net import FusionNet
from classifier.runtime.distributed import ProcessGroup
from classifier.training import distillation, head_probe, image_size, losses, optimizers, schedule
from classifier.training.checkpoint import Checkpoint
from classifier.training.distillation import Teacher
from classifier.training.ema import ModelEMA
from classifier.training.feature_cache import FeatureCache
from classifier.training.forward_path import ForwardPath, FullModelPath
from classifier.training.fusion.conclude import Fused, conclude, extract_shared, fit_finally
from classifier.training.semi.consistency import Consistency, count_repeats


class TrainState:
    """Weights, optimizer and counters of a run on one rank. features: cache directory for backbone features.

    teacher: for loss.distill, and only for it; ConfigError otherwise.
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        group: ProcessGroup,
        features: Path | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        if bool(experiment.loss.distill) != (teacher is not None):
            raise ConfigError("loss.distill needs a teacher: distill by the verb compress, which has one")
        self.experiment, self.dataset, self.group, self.features = experiment, dataset, group, features
        self.teacher = teacher
        self.device = group.device
        torch.manual_seed(experiment.seed)
        self.model = build_model(experiment, dataset).to(self.device)
        if experiment.train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = optimizers.build(
            experiment.optimizer,
            self.model,
            head_names=models.head_parameter_names(self.model),
            is_pretrained=experiment.model.weights is not None,
            dtype=torch.bfloat16 if experiment.train.precision == "bf16" else torch.float32,
        )
        label_sets_MK = dataset.label_sets_MK
        self.label_sets_MK = None if label_sets_MK is None else label_sets_MK.to(self.device)
        counts_K = torch.from_numpy(
            count_labels(
                dataset.train.labels_N.numpy(),
                len(dataset.class_names),
                None if label_sets_MK is None else label_sets_MK.numpy(),
            )
        )
        self.loss: Any = losses.build(
            experiment.loss, class_counts_K=counts_K.to(self.device), task=dataset.task, images=len(dataset.train)
        )
        if teacher is not None:
            distill = experiment.loss.distill, experiment.loss.distill_temperature
            self.loss = distillation.make_loss(self.loss, teacher, *distill, self.device)
        decay = experiment.optimizer.ema
        self.ema = ModelEMA(self.model, decay) if decay is not None else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=experiment.train.precision == "fp16")
        self.plateau = schedule.Plateau(experiment.schedule, metric=experiment.train.metric)
        self.scorer = Scorer.from_experiment(experiment, dataset, self.device)
        self.batch = experiment.data.batch * experiment.optimizer.accumulate
        if dataset.unlabelled is not None and group.world_size > 1:
            raise ConfigError("data.unlabelled is learned by one process: start a single one, or leave it out")
        is_semi = dataset.unlabelled is not None and experiment.semi.weight > 0
        self.semi = Consistency(experiment, dataset, self.scorer) if is_semi else None
        self.repeats = count_repeats(experiment, dataset)  # of the labelled images in an epoch
        self.steps_per_epoch = loader.steps_per_epoch(len(dataset.train) * self.repeats, self.batch)
        self.steps = self.steps_per_epoch * experiment.train.epochs
        self.step = 0  # optimizer steps done
        self.lr = 0.0
        self.seconds = 0.0  # of training, without validation; includes earlier processes of the run
        self.best: tuple[float, float] | None = None
        self.best_epoch = 0
        self.fold_scores: dict[str, Any] | None = None  # of a probe by cross-validation, without validation images
        self.fused: Fused | None = None  # the final model, where columns join the images
        self.is_backbone_frozen: bool | None = None  # None: before the first epoch
        self.path: ForwardPath = self._full_path(is_backbone_frozen=False)
        self.network = self.path.module  # what a step runs: the path's module, wrapped for gradient exchange
        self.reset_sums()

    @property
    def eval_model(self) -> nn.Module:
        """The model to validate and save: the averaged one, if there is one; at the end of a training with columns,
        what was found to be better."""
        if self.fused is not None:
            return self.fused.model
        return self.ema.model if self.ema is not None else self.model

    def reset_sums(self) -> None:
        """Reset the epoch's sums (loss, hits, images, first step with a non-finite loss or -1) and order hash."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no float64
        self.sums = torch.tensor([0.0, 0.0, 0.0, -1.0], dtype=dtype, device=self.device)
        self.trace = torch.zeros(1, dtype=torch.int64)

    @property
    def feature_cache(self) -> FeatureCache | None:
        """The cache that feeds the head, while the backbone is frozen and augment.views is set."""
        return self.path if isinstance(self.path, FeatureCache) else None

    def begin_epoch(self, epoch: int) -> Split:
        """Freeze or unfreeze the backbone where this epoch changes that; return the training images for its loader."""
        self.fold_scores = None
        config = self.experiment.model
        until = math.inf if config.freeze_epochs is None else config.freeze_epochs
        frozen = config.freeze == "backbone" and epoch < until
        if frozen != self.is_backbone_frozen:
            self._set_backbone_frozen(frozen)
        return self.path.training_images(epoch)

    def _set_backbone_frozen(self, frozen: bool) -> None:
        """Choose the forward path, and wrap its module anew: other gradients are exchanged from now on."""
        if frozen or self.is_backbone_frozen:
            models.set_frozen(self.model, frozen)
        if self.experiment.model.freeze == "early":
            models.freeze_early_layers(self.model)
        self.is_backbone_frozen = frozen
        if frozen and self.experiment.views:
            self.path = FeatureCache(self.experiment, self.dataset, self.model, self.scorer, self.features)
        else:
            self.path = self._full_path(is_backbone_frozen=frozen)
        self.network = self.group.wrap(self.path.module)
        if self.experiment.train.compile:
            self.network.compile()

    def _full_path(self, *, is_backbone_frozen: bool) -> FullModelPath:
        parts = (self.experiment, self.dataset, self.model, self.scorer)
        return FullModelPath(*parts, is_backbone_frozen=is_backbone_frozen, teacher=self.teacher)

    def fit_head(self) -> None:
        """The first epoch with model.probe: the head becomes a linear probe, and the backbone stays as it is."""
        fitted = head_probe.fit_head(self.model, self.experiment, self.dataset, self.scorer, self.group, self.features)
        if self.ema is not None:
            self.ema = ModelEMA(self.model, self.ema.decay)
        if self.group.is_first:  # the sums are over all ranks, and must count once
            self.sums[:3] = torch.tensor([fitted.loss, fitted.hits, fitted.images])
        if fitted.compared is not None and self.experiment.train.epochs == 1:  # else the comparison comes at the end
            self.fused = conclude(self.eval_model, fitted.compared)
        if not len(self.dataset.validation) and (held_out := fitted.held_out) is not None:
            by_folds = self.scorer.log_probabilities(held_out.logits_MK), held_out.targets
            self.fold_scores = self.scorer.score([by_folds], ProcessGroup())
        self.step += self.steps_per_epoch

    def compare_fusion(self) -> Fused | None:
        """Compare the model with others that join images and columns, after its last step; None without columns."""
        model = self.eval_model
        if not isinstance(model, FusionNet):
            return None
        train = head_probe.select_images(self.dataset)
        features_NB = extract_shared(model, self.scorer, train, self.group)
        parts = (model, self.experiment, self.dataset, self.scorer, self.group, features_NB, train)
        return conclude(model, fit_finally(*parts))

    def end_epoch(self, epoch: int) -> None:
        """Call it on every rank after the epoch's last step."""
        self.path.end_epoch(epoch, self.group)

    def train_step(self, batch: loader.Batch, epoch: int) -> None:
        """The only function that changes weights: one step on one global batch, of which this rank has its shard."""
        self._set_learning_rate()
        torch.manual_seed((self.experiment.seed * 1_000_003 + self.step) * 4099 + self.group.rank)
        self.optimizer.zero_grad(set_to_none=True)
        self.path.set_train_mode(self.network)
        *others, last = loader.split_batch(batch, self.experiment.optimizer.accumulate)
        for piece in others:  # only the last piece's backward pass exchanges gradients between the ranks
            with self.group.no_sync(self.network):
                self._backward(piece, epoch)
        self._backward(last, epoch)
        if self.semi is not None and self.step >= self.experiment.semi.start * self.steps:
            self._backward_unlabelled(self.semi, epoch)
        if self.experiment.optimizer.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.experiment.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.trace += loader.compute_trace(batch)  # overflow wraps around, as it should
        if self.ema is not None:
            self.ema.update(self.model, self.step)

    def _set_learning_rate(self) -> None:
        done = self.steps_per_epoch if self.experiment.model.probe else 0  # without gradients, by fit_head
        scale, momentum_shift = schedule.scale_at(
            self.experiment.schedule,
            step=self.step - done,
            steps=self.steps - done,
            steps_per_epoch=self.steps_per_epoch,
            reductions=self.plateau.reductions,
        )
        self.lr = self.experiment.optimizer.lr * scale
        optimizers.set_lr(self.optimizer, self.lr, momentum_shift)

    def _backward(self, batch: loader.Batch, epoch: int) -> None:
        """Accumulate the batch's gradients, and add it to the sums."""
        count = len(batch.labels_N)
        if count == 0:  # a rank without images still takes part in the exchange of gradients, with weight zero
            batch = loader.make_placeholder(batch, self.dataset.train)
        labels_N = batch.labels_N.to(self.device, non_blocking=True)
        own_targets = gather_targets(labels_N, self.label_sets_MK)
        outputs, targets = self.path.forward(self.network, batch, own_targets, epoch)
        losses_N = self.loss(outputs, targets)
        # DDP averages gradients over ranks; with this weight the result is the mean over all images of the step.
        weight = self.group.world_size / batch.global_count if count else 0.0
        self.scaler.scale(losses_N.sum() * weight).backward()
        logits_NK = outputs[0] if isinstance(outputs, tuple) else outputs
        self._add_to_sums(losses_N, logits_NK, own_targets, count)

    def _backward_unlabelled(self, semi: Consistency, epoch: int) -> None:
        """Accumulate the gradients of the step's unlabelled images; the sums are of labelled ones."""
        teacher = self.network if self.ema is None else self.ema.model
        loss = semi.compute_loss(self.network, teacher, self.step, epoch)
        self.scaler.scale(loss).backward()
        with torch.no_grad():
            is_first_nonfinite = ~torch.isfinite(loss) & (self.sums[3] < 0)
            self.sums[3] = torch.where(is_first_nonfinite, float(self.step + 1), self.sums[3])

    @torch.no_grad()
    def _add_to_sums(self, losses_N: Tensor, logits_NK: Tensor, targets: Tensor, count: int) -> None:
        """count: images of the batch; 0 for a placeholder, of which only a loss that is not finite is noted."""
        loss = losses_N.sum(dtype=self.sums.dtype)
        if count:
            hits = find_hits(logits_NK, targets).sum()
            self.sums[:3] += torch.stack([loss, hits.to(loss.dtype), torch.full_like(loss, count)])
        is_first_nonfinite = ~torch.isfinite(loss) & (self.sums[3] < 0)
        self.sums[3] = torch.where(is_first_nonfinite, float(self.step + 1), self.sums[3])

    def validate(self) -> dict[str, Any]:
        """Compute the validation scores of eval_model, on every rank."""
        return self.path.validate(self.eval_model, self.group)

    def update_best(self, scores: dict[str, Any], number: int, *, is_again: bool = False) -> bool:
        """Record a validated epoch; return whether it is the best so far. Ties are broken by the lower loss.

        is_again: whether another model of the same epoch was recorded before."""
        metric = self.experiment.train.metric
        score = math.nan if scores[metric] is None else scores[metric]  # as of images that all have the same grade
        if not is_again:
            self.plateau.update(score)
        value = -score if metric in schedule.LOWER_IS_BETTER else score
        rank = (-math.inf if math.isnan(value) else value, -scores["loss"])
        improves = self.best is None or rank > self.best
        if improves:
            self.best, self.best_epoch = rank, number
        return improves

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or train.patience is used up."""
        epoch, patience = self.step // self.steps_per_epoch, self.experiment.train.patience
        is_patience_over = patience is not None and self.best is not None and epoch - self.best_epoch >= patience
        return self.step >= self.steps or is_patience_over

    def checkpoint(self) -> Checkpoint | None:
        """Copy what `restore` needs, on rank 0, else None; every rank must call it, at the same step.

        The ranks' models differ only in their buffers (batch norm's running statistics).
        """
        sums, buffers = self.group.all_reduce_sum(self.sums.clone()), self.group.all_gather(self._flatten_buffers())
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
            **({} if self.semi is None else {"semi": self.semi.state_dict()}),
        }
        about = {"epoch": self.step // self.steps_per_epoch, "dataset": self.dataset.fingerprint}
        return Checkpoint(self.step, self.model.state_dict(), state, about, self.dataset.class_names).copy_to_cpu()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint, on the same or another number of ranks. RunError if it is another training's."""
        try:
            self._restore(checkpoint)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise RunError(
                f"the checkpoint of step {checkpoint.step} belongs to another training ({in_short(error)}): "
                "delete it to resume from the one before, or start a new run"
            ) from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.model.load_state_dict(checkpoint.weights)
        optimizers.load_state(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.plateau.load_state_dict(state["plateau"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["average"])
        if self.semi is not None:
            self.semi.load_state_dict(state["semi"])
        if buffers := state.get("buffers"):
            is_same_world = len(buffers) == self.group.world_size
            self._load_buffers(buffers[self.group.rank] if is_same_world else torch.stack(buffers).mean(0))
        if self.group.is_first:  # the sums of a partial epoch are over all ranks, and must count once
            self.sums = state["sums"].to(self.device)
            self.trace = state.get("trace", self.trace).cpu()
        self.seconds, self.best, self.best_epoch = state["seconds"], state["best"], state["best_epoch"]
        self.step = checkpoint.step

    def _rank_buffers(self) -> list[Tensor]:
        """The buffers that differ between ranks: the floating-point ones of the model and of its average."""
        models = [self.model] + ([self.ema.model] if self.ema is not None else [])
        return [buffer for model in models for buffer in model.buffers() if buffer.is_floating_point()]

    def _flatten_buffers(self) -> Tensor:
        buffers = [buffer.flatten().float() for buffer in self._rank_buffers()]
        return torch.cat([torch.empty(0, device=self.device), *buffers])

    def _load_buffers(self, vector: Tensor) -> None:
        buffers = self._rank_buffers()
        for buffer, values in zip(buffers, vector.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(values.view_as(buffer))


def build_model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """Build the experiment's model for this dataset, with its initial weights. Errors of models.build, check_sizes."""
    model = models.build(
        experiment.model,
        classes=len(dataset.class_names),
        channels=dataset.channels,
        size=dataset.size,
        class_names=dataset.class_names,
        task=dataset.task,
        column_widths=() if dataset.columns is None else dataset.columns.widths,
    )
    sizes = image_size.list_sizes(experiment.schedule, size=dataset.size, epochs=experiment.train.epochs)
    factory.check_sizes(model, experiment.model, channels=dataset.channels, sizes=sizes.keys() - {dataset.size})
    return model
