"""Several processes of one run: what Fabric is to know of them, and what they tell each other."""

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
    """What Fabric is to know of the devices. Raises SettingsError where torchrun started another number of them."""
    if not started_by_torchrun():
        return {"devices": 1}
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    asked = settings.devices * settings.nodes
    if asked not in (1, everywhere):
        found = f"{everywhere} processes, and settings for {asked}"
        raise SettingsError("torchrun and the settings do not agree", found=found, remedy="Leave out --devices.")
    if settings.part and asked < everywhere:  # how many parts a batch has is part of the run's signature
        remedy = "Say how many processes there are: --devices (a machine) and --nodes."
        raise SettingsError("--compute.part needs the number of processes", found=everywhere, remedy=remedy)
    # BN's statistics are the same everywhere already: buffers need no sending.
    strategy = DDPStrategy(broadcast_buffers=False)
    return {"devices": here, "num_nodes": everywhere // here, "strategy": strategy}


def add_up(fabric: Fabric, numbers: Sequence[float]) -> list[float]:
    """The sums of some numbers over all processes."""
    if fabric.world_size == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64, device=fabric.device)
    distributed.all_reduce(total)
    return total.tolist()


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Every process's value, in the order of the processes."""
    if fabric.world_size == 1:
        return [value]
    values = [None] * fabric.world_size
    distributed.all_gather_object(values, value)
    return values
