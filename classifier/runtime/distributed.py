"""Data-parallel training on plain torch.distributed: ranks, devices, collectives and gradient averaging.

The training loop uses a ProcessGroup, whatever launched it: a single process is a group of one.
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

# A collective operation that takes longer has lost a rank; without a timeout it would wait forever.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class ProcessGroup:
    """This process in a group of `world_size`; collectives are no-ops in a group of one."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def current(cls, device: torch.device) -> "ProcessGroup":
        """Return the group that torch.distributed was initialized with, or a group of one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=device)
        return cls(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, on every rank; in a group of one, the tensor itself."""
        if self.world_size > 1:
            tensor = tensor.to(self.device)
            dist.all_reduce(tensor, dist.ReduceOp.SUM)
        return tensor

    def all_reduce_max(self, value: int) -> int:
        """Return the maximum over all ranks, on every rank."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, in their order, on every rank; they must have the same shape."""
        if self.world_size == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(tensors, tensor.contiguous())
        return tensors

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value (any picklable object) on every rank."""
        if self.world_size == 1:
            return value
        objects = [value]
        dist.broadcast_object_list(objects, src=0)
        return objects[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model wrapped so that its backward pass averages gradients over the ranks.

        During training each rank keeps its own buffers (batch norm's running statistics); see `average_buffers`.
        """
        if self.world_size == 1:
            return model
        ids = [self.device.index or 0] if self.device.type == "cuda" else None
        # With frozen parameters, DDP has to look for those without a gradient, or the other ranks would hang.
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
        """Return a context in which backward passes accumulate gradients on this rank without exchanging them."""
        return network.no_sync() if self.world_size > 1 else contextlib.nullcontext()  # pyright: ignore

    def average_buffers(self, model: nn.Module) -> None:
        """Average floating-point buffers over the ranks, so that all validate and save the same model."""
        if self.world_size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer, dist.ReduceOp.SUM)
                    buffer /= self.world_size


@contextlib.contextmanager
def init_process_group(**options: Any) -> Iterator[None]:
    """Initialize torch.distributed's process group and destroy it at the end; `options` are those of its function.

    The group's threads end when its last reference goes. A thread that outlives the interpreter aborts the process
    when it frees a tensor, so no reference may remain. torch.distributed.nn.functional would hold one in its default
    arguments if it were imported later; the wrapped model, which is part of a reference cycle, holds one until it is
    garbage-collected.
    """
    import torch.distributed.nn.functional  # noqa: F401

    dist.init_process_group(timeout=COLLECTIVE_TIMEOUT, **options)
    try:
        yield
    finally:
        gc.collect()
        dist.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """Return the device of that name; auto picks a GPU if there is one. ConfigError if there is no such device."""
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
