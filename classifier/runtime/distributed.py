"""The processes that train together: rank, device, gradients and sums, on torch.distributed alone.

The loop asks a Group and never knows who launched it: a plain process is a group of one.
"""

import contextlib
import datetime
import gc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from classifier.errors import ConfigError

# A collective that waits longer than this has lost a member; without a limit it would wait for ever.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among `world` ones; everything is a no-op in a group of one."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device) -> "ProcessGroup":
        """The group that torch.distributed is in already, or a group of one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=device)
        return cls(rank=dist.get_rank(), world=dist.get_world_size(), device=device)

    @property
    def is_first(self) -> bool:
        """Rank 0 writes the files."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, on every rank; the tensor itself in a group of one."""
        if self.world_size > 1:
            tensor = tensor.to(self.device)
            dist.all_reduce(tensor, dist.ReduceOp.SUM)
        return tensor

    def all_reduce_max(self, value: int) -> int:
        """The largest value of all ranks, on every rank."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of every rank, by rank, on every rank; they must be of one shape."""
        if self.world_size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(found, tensor.contiguous())
        return found

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over the ranks.

        Buffers (batch norm's running statistics) stay each rank's own while training; see `average_buffers`.
        """
        if self.world_size == 1:
            return model
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        # A frozen or unused head must not hang the others: parameters without a gradient are looked for.
        unused = any(not p.requires_grad for p in model.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.parallel.DistributedDataParallel(
                model,
                device_ids=ids,
                broadcast_buffers=False,
                find_unused_parameters=unused,
                gradient_as_bucket_view=True,
            )

    def no_sync(self, network: nn.Module) -> contextlib.AbstractContextManager[None]:
        """While it lasts, backward passes add to the gradients of this rank and exchange none."""
        return network.no_sync() if self.world_size > 1 else contextlib.nullcontext()  # pyright: ignore

    def average_buffers(self, model: nn.Module) -> None:
        """Give every rank the mean of all ranks' floating buffers, so that they validate and save one model."""
        if self.world_size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer, dist.ReduceOp.SUM)
                    buffer /= self.world_size


@contextlib.contextmanager
def init_process_group(**how: Any) -> Iterator[None]:
    """Be in torch.distributed's group while it lasts; `how` is what `init_process_group` takes.

    The group's threads end with the last reference to it. One that outlived Python's would abort the process as it
    drops a tensor, so nothing may keep the group: the functions imported first would, as their defaults, if they were
    imported later; and the wrapped model does, which refers to itself, until it is collected.
    """
    import torch.distributed.nn.functional  # noqa: F401

    dist.init_process_group(timeout=COLLECTIVE_TIMEOUT, **how)
    try:
        yield
    finally:
        gc.collect()
        dist.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """The device that `train.device` names; auto takes a GPU where there is one. ConfigError if it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"train.device is {name!r}: it must be auto, cpu, cuda, cuda:N or mps") from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in count or (device.index or 0) >= count[device.type]:
        raise ConfigError(
            f"train.device is {name!r}: this machine has {count.get(device.type, 0)} such devices; use auto"
        )
    return device
