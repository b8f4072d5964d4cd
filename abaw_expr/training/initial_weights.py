"""Weights of other runs that a run begins with, branch by branch: to go on from what was learnt on other data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from abaw_expr.errors import RunError
from abaw_expr.models.network import Network, build_network
from abaw_expr.settings import ModelSettings
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint, load_tensors, save_tensors
from abaw_expr.training.run import RunFolder

Weights = Mapping[str, Tensor]


def keep_start(run: RunFolder, sources: Sequence[Path], settings: ModelSettings, task: Task) -> None:
    """Keeps in the folder of a run what it begins with: the branches of these runs (their best epoch) or checkpoints.

    Branches that none has are drawn from the seed. Raises RunError where two have the same branch, none has any that
    the run trains, a branch has other layers, or the run began with other weights already.
    """
    network, weights = build_network(settings, task.n_columns), dict[str, Tensor]()
    for source in sources:
        path = RunFolder(source).best if source.is_dir() else source
        checkpoint = load_checkpoint(path)
        trained = checkpoint.average or checkpoint.network
        found = {key: tensor for key, tensor in trained.items() if _branch(key) in settings.branches}
        if not found:
            expected = f"a run of {' or '.join(settings.branches)}"
            raise RunError("has no branch that this run trains, to begin with", path=path, expected=expected)
        if twice := {_branch(key) for key in found} & {_branch(key) for key in weights}:
            remedy = "Name one run for each branch."
            raise RunError(f"has the branch {', '.join(sorted(twice))}, as another start has", path=path, remedy=remedy)
        _put(network, found, path)
        weights |= found
    if run.last.exists():
        _check_same(run, weights)
    else:
        save_tensors(run.begun_with, weights)


def take_start(network: Network, path: Path) -> None:
    """Puts the weights that a run keeps into its network."""
    _put(network, load_tensors(path), path)


def _put(network: Network, weights: Weights, path: Path) -> None:
    """Puts whole branches into a network. Raises RunError where their layers are others; `path` is named in it."""
    named = {_branch(key) for key in weights}
    own = {key: tensor for key, tensor in network.state_dict().items() if _branch(key) not in named}
    try:
        network.load_state_dict({**own, **weights})
    except RuntimeError as error:
        remedy = "Give the settings under `model` that it was trained with."
        raise RunError("has other layers than this run, which is to begin with it", path=path, remedy=remedy) from error


def _check_same(run: RunFolder, weights: Weights) -> None:
    """Raises RunError where the run did not begin with these weights."""
    before = load_tensors(run.begun_with) if run.begun_with.exists() else {}
    if before.keys() != weights.keys() or not all(before[key].equal(tensor) for key, tensor in weights.items()):
        remedy = "Resume without --start, or name another folder."
        raise RunError("began with other weights", path=run.root, remedy=remedy)


def _branch(key: str) -> str:
    """The branch that an entry of a network's state belongs to."""
    return key.split(".")[1]
