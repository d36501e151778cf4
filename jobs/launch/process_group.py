"""The process group of Ray's workers, which listens on no other address than the nodes' own.

Set up by Ray, torch's store would listen on all addresses of the first worker's machine. It asks for no token: whoever
reaches it reads and writes its keys.
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray.util
from ray.train import get_context
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, get_device
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from classifier.runtime.distributed import COLLECTIVE_TIMEOUT, ProcessGroup, init_process_group

from .network_interface import use_interface


class _WorkersBackend(Backend):
    """Starts nothing: the workers join each other in `join_workers`."""

    share_cuda_visible_devices = True  # as DistributedDataParallel expects


@dataclass
class WorkersConfig(TorchConfig):
    """Ray's configuration of a group that its workers set up themselves."""

    @property
    def backend_cls(self) -> Any:
        return _WorkersBackend


@contextlib.contextmanager
def join_workers() -> Iterator[ProcessGroup]:
    """Join the other workers of this training, from inside of one."""
    rank, world_size, device = get_context().get_world_rank(), get_context().get_world_size(), get_device()
    if world_size == 1:
        yield ProcessGroup(device=device)
        return
    address = ray.util.get_node_ip_address()
    use_interface(address)
    # Rank 0's socket is bound before the others learn its port: no other process can take it in between.
    listener = _listen(address) if rank == 0 else None
    host, port = broadcast_from_rank_zero((address, listener.getsockname()[1]) if listener else ("", 0))
    descriptor = listener.detach() if listener else None
    store = TCPStore(
        host, port, world_size, rank == 0, COLLECTIVE_TIMEOUT, wait_for_workers=False, master_listen_fd=descriptor
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    with init_process_group(backend=backend, store=store, rank=rank, world_size=world_size):
        yield ProcessGroup.current(device)


def _listen(address: str) -> socket.socket:
    """A socket that listens on a free port of this address alone."""
    return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
