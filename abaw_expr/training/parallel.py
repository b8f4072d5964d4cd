"""Several processes of one run: how they are started, who is first, and what they tell each other."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import distributed

from abaw_expr.errors import SettingsError
from abaw_expr.settings import ComputeSettings


def started_by_torchrun() -> bool:
    """Whether this is one of several processes of a run."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def start_processes(arguments: Sequence[str], count: int) -> int:
    """Runs the command line in `count` processes of this machine and returns the exit status of the first to fail."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    threads = max((os.cpu_count() or 1) // count, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="train",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "abaw_expr", *arguments)
    except ChildFailedError as error:
        return min(failure.exitcode for failure in error.failures.values()) if error.failures else 1
    except SignalException as error:  # passed on to the processes, which have saved and told so
        return 128 + error.sigval
    return 0


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
