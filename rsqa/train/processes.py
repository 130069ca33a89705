"""How several processes share one network: each holds it whole and gradients are averaged (DDP), or weights, gradients
and the optimiser's state are split over them (FSDP).

FSDP splits the network as one unit: it is gathered before each forward pass and let go behind the backward one.
`rsqa.models` reads the weights of inner layers without calling these, so they can't be gathered one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map


def split_wanted() -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))


def spread(network: nn.Module, accelerator: Accelerator) -> nn.Module:
    """`network` on this process's device and tied to the others; make its optimiser afterwards."""
    network = network.to(accelerator.device)
    if accelerator.num_processes == 1:
        return network
    if not split_wanted():
        return DistributedDataParallel(network)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    fully_shard(network, mesh=mesh, reshard_after_forward=False)
    return network


def untied(network: nn.Module) -> AbstractContextManager[None]:
    """Within the block gradients are added up and not averaged over processes yet.

    FSDP averages after every micro batch all the same: whole gradients would take the memory that it saves.
    """
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Within the block every process has all weights of a network of `spread`; all must enter it."""
    if not isinstance(network, FSDPModule):
        yield
        return
    network.unshard()
    try:
        yield
    finally:
        network.reshard()


def whole(tensor: Any) -> Any:
    """A tensor of which this process has a part -> all of it, of every process; anything else as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Any]:
    """The state of an optimiser with whole tensors. All processes must ask; those that do not `keep` it get none."""

    def taken(value: Any) -> Any:
        all_of_it = whole(value)
        return all_of_it if keep else None

    state: dict[str, Any] = tree_map(taken, optimizer.state_dict())
    return state


def placed_like(weight: Tensor, value: Tensor) -> Tensor:
    """A whole tensor -> as `weight` is held; every process has all of `value`."""
    if not isinstance(weight, DTensor):
        return value
    on_device = value.to(weight.device)
    placed: Tensor = distribute_tensor(on_device, weight.device_mesh, weight.placements, src_data_rank=None)
    return placed
