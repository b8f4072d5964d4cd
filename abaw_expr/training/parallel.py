"""Several processes of one run: their description for Fabric, and their communication."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import distributed

from abaw_expr.errors import SettingsError
from abaw_expr.settings import ComputeSettings
from abaw_expr.training.launch import started_by_torchrun


def strategy_of(settings: ComputeSettings) -> dict[str, Any]:
    """Fabric's arguments for the devices. Raises SettingsError where torchrun started another number of processes."""
    if not started_by_torchrun():
        return {"devices": 1}
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    asked = settings.devices * settings.nodes
    if asked not in (1, everywhere):
        found = f"{everywhere} processes, and settings for {asked}"
        problem = "torchrun and the settings have different numbers of processes"
        raise SettingsError(problem, found=found, remedy="Leave out --devices.")
    if settings.micro_batch and asked < everywhere:  # the number of micro-batches is part of the run's signature
        remedy = "Give the number of processes: --devices (on each machine) and --nodes."
        raise SettingsError("--compute.micro-batch needs the number of processes", found=everywhere, remedy=remedy)
    # BN statistics are already the same in all processes: buffers need not be sent.
    strategy = DDPStrategy(broadcast_buffers=False)
    return {"devices": here, "num_nodes": everywhere // here, "strategy": strategy}


def sum_over_processes(fabric: Fabric, numbers: Sequence[float]) -> list[float]:
    """The sum of each number over all processes."""
    if fabric.world_size == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    distributed.all_reduce(total)
    return total.tolist()


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """The values of all processes, in the order of the processes."""
    if fabric.world_size == 1:
        return [value]
    values = [None] * fabric.world_size
    distributed.all_gather_object(values, value)
    return values
