"""Initial weights from other runs, branch by branch, to fine-tune networks that were trained on other data.

Shapes: weights have the shapes of the parameters and buffers of their network.
"""

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


def keep_initial_weights(run: RunFolder, sources: Sequence[Path], settings: ModelSettings, task: Task) -> None:
    """Stores the initial weights of a run in its folder: the branches of other runs (best epoch) or of checkpoints.

    Branches that no source has are initialised from the seed. Raises RunError where two sources have the same branch,
    a source has no branch that the run trains, a branch has other layers, or the run was started with other weights.
    """
    network, weights = build_network(settings, task.n_columns), dict[str, Tensor]()
    for source in sources:
        path = RunFolder(source).best if source.is_dir() else source
        checkpoint = load_checkpoint(path)
        trained = checkpoint.ema or checkpoint.network
        found = {key: tensor for key, tensor in trained.items() if _branch(key) in settings.branches}
        if not found:
            expected = f"a run of {' or '.join(settings.branches)}"
            raise RunError("has no branch that this run trains", path=path, expected=expected)
        if twice := {_branch(key) for key in found} & {_branch(key) for key in weights}:
            remedy = "Name one run for each branch."
            raise RunError(
                f"has the branch {', '.join(sorted(twice))}, which another source of initial weights also has",
                path=path,
                remedy=remedy,
            )
        _put(network, found, path)
        weights |= found
    if run.last.exists():
        _check_same(run, weights)
    else:
        save_tensors(run.initial_weights, weights)


def load_initial_weights(network: Network, path: Path) -> None:
    """Loads the initial weights of a run into its network. Raises RunError where the network has other layers."""
    _put(network, load_tensors(path), path)


def _put(network: Network, weights: Weights, path: Path) -> None:
    """Loads whole branches into a network. Raises RunError, which names `path`, where the network has other layers."""
    named = {_branch(key) for key in weights}
    own = {key: tensor for key, tensor in network.state_dict().items() if _branch(key) not in named}
    try:
        network.load_state_dict({**own, **weights})
    except RuntimeError as error:
        remedy = "Give the settings under `model` that it was trained with."
        problem = "has other layers than this run, so they cannot be its initial weights"
        raise RunError(problem, path=path, remedy=remedy) from error


def _check_same(run: RunFolder, weights: Weights) -> None:
    """Raises RunError where the run was started with other initial weights."""
    before = load_tensors(run.initial_weights) if run.initial_weights.exists() else {}
    if before.keys() != weights.keys() or not all(before[key].equal(tensor) for key, tensor in weights.items()):
        remedy = "Resume without --initial-weights, or name another folder."
        raise RunError("was started with other initial weights", path=run.root, remedy=remedy)


def _branch(key: str) -> str:
    """The branch that an entry of a network's state belongs to."""
    return key.split(".")[1]
