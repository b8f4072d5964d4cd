"""How the processes of one run come about: by this command, by torchrun on each machine, or by SLURM's srun.

Whoever starts them, each knows its place by torchrun's variables. Nothing heavy is imported before it is needed.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence

from abaw_expr.errors import SettingsError

_PORT = 29400
"""Where the processes of SLURM's job 0 meet; torchrun's default."""
_PORTS = 20000
"""Jobs on one machine meet at ports of their own, by their numbers."""
_NEEDED = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST")
"""Variables that srun gives each task."""


def started_by_torchrun() -> bool:
    """Whether this is one of several processes of a run."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def join_slurm_step() -> None:
    """Makes the tasks of a step that srun started the processes of one run, by SLURM's variables.

    Raises SettingsError where nodes have different numbers of tasks, or SLURM does not say how many there are: such
    tasks would each train alone, into one folder.
    """
    env = os.environ
    count = int(env.get("SLURM_STEP_NUM_TASKS", "1"))
    if started_by_torchrun() or "RANK" in env:
        return
    if count == 1:
        if int(env.get("SLURM_PROCID", "0")):
            remedy = "Start one task, or start them by `srun abaw-expr train ...` in a job of SLURM."
            raise SettingsError("is one of several tasks of SLURM, which does not say how many", remedy=remedy)
        return
    absent = [name for name in _NEEDED if name not in env]
    if absent:
        remedy = "Start them by `srun abaw-expr train ...` in a job of SLURM."
        problem = "is one of several tasks of SLURM, which does not say where the others are"
        raise SettingsError(problem, found=f"no {', no '.join(absent)}", remedy=remedy)
    env.update(_as_torchrun(env, count))


def _as_torchrun(env: Mapping[str, str], count: int) -> dict[str, str]:
    """What torchrun would have told this process, out of what srun does."""
    by_node = set(re.sub(r"\(x\d+\)", "", env["SLURM_STEP_TASKS_PER_NODE"]).split(","))
    if len(by_node) > 1:
        found, remedy = env["SLURM_STEP_TASKS_PER_NODE"], "Say --ntasks-per-node."
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
    """The first of SLURM's hosts: `node[07-09,12]`, `a1,b2`."""
    found = re.match(r"([^\[,]*)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    assert found is not None  # all its parts may be empty
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
    except SignalException as error:  # passed on to the processes, which have saved and told so
        return 128 + error.sigval
    return 0
