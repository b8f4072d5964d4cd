"""Starts the processes of one run: by this command, by torchrun on each machine, or by SLURM's srun.

In all cases each process reads its rank from torchrun's environment variables. Slow imports are made only when needed.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence

from abaw_expr.errors import SettingsError

_PORT = 29400
"""The rendezvous port of SLURM's job 0; torchrun's default."""
_PORTS = 20000
"""Number of ports; jobs on one machine use different ports, by their job numbers."""
_NEEDED = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST")
"""Environment variables that srun sets in each task."""


def started_by_torchrun() -> bool:
    """Whether torchrun, or its variables, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


def join_slurm_step() -> None:
    """Makes the tasks of a step that srun started the processes of one run, from SLURM's environment variables.

    Raises SettingsError where nodes have different numbers of tasks, or the number of tasks is unknown: the tasks would
    then train separately into the same folder.
    """
    env = os.environ
    count = int(env.get("SLURM_STEP_NUM_TASKS", "1"))
    if started_by_torchrun() or "RANK" in env:
        return
    if count == 1:
        if int(env.get("SLURM_PROCID", "0")):
            remedy = "Start one task, or start them by `srun abaw-expr train ...` in a job of SLURM."
            raise SettingsError("is one of several tasks of SLURM, whose number is not set", remedy=remedy)
        return
    absent = [name for name in _NEEDED if name not in env]
    if absent:
        remedy = "Start them by `srun abaw-expr train ...` in a job of SLURM."
        problem = "is one of several tasks of SLURM, and environment variables of the step are not set"
        raise SettingsError(problem, found=f"no {', no '.join(absent)}", remedy=remedy)
    env.update(_as_torchrun(env, count))


def _as_torchrun(env: Mapping[str, str], count: int) -> dict[str, str]:
    """The environment variables that torchrun would have set, from those of srun."""
    by_node = set(re.sub(r"\(x\d+\)", "", env["SLURM_STEP_TASKS_PER_NODE"]).split(","))
    if len(by_node) > 1:
        found, remedy = env["SLURM_STEP_TASKS_PER_NODE"], "Use --ntasks-per-node."
        raise SettingsError("SLURM's nodes have different numbers of tasks", found=found, remedy=remedy)
    job = env.get("SLURM_JOB_ID", "0")
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": by_node.pop(),
        "GROUP_RANK": env.get("SLURM_NODEID", "0"),
        "MASTER_ADDR": env.get("MASTER_ADDR") or _first_host(env["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": env.get("MASTER_PORT") or str(_PORT + int(job) % _PORTS),
        "TORCHELASTIC_RUN_ID": f"{job}.{env.get('SLURM_STEP_ID', '0')}",
    }


def _first_host(nodes: str) -> str:
    """The first host of a SLURM node list such as `node[07-09,12]` or `a1,b2`."""
    found = re.match(r"([^\[,]*)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    assert found is not None  # the pattern matches the empty string
    return "".join(part or "" for part in found.groups())


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
    except SignalException as error:  # the processes got the signal too, and have saved their state
        return 128 + error.sigval
    return 0
