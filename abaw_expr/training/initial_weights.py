"""What networks start from: files of weights of encoders, and the branches of other runs.

Shapes: weights have the shapes of the parameters and buffers of their network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from abaw_expr.errors import RunError
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.weights import read_tensors
from abaw_expr.models.encoders.weights_path import DEFAULT
from abaw_expr.models.network import Network, build_network
from abaw_expr.settings import Settings
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, load_tensors, save_tensors
from abaw_expr.training.run import RunFolder, weights_files

Weights = Mapping[str, Tensor]


def load_weights_files(network: Network, settings: Settings) -> None:
    """Loads the files of weights that the settings name into their encoders.

    Raises RunError where a file cannot be read, would run code, or does not fit its encoder as a whole; the keys are
    named.
    """
    files = weights_files(settings)
    for name, stream, encoder in network.encoders_of_streams():
        if (path := files.get(f"{name}.{stream}")) is not None:
            encoder.load(read_tensors(path), path, f"branches.{name}.{stream}")
        elif settings.branches[name].streams_of(name)[stream].weights == DEFAULT:
            encoder.download()


def pretrained_encoders(network: Network, settings: Settings) -> list[Encoder]:
    """The encoders that begin with weights of a file, or with those that their library downloads."""
    return [
        encoder
        for name, stream, encoder in network.encoders_of_streams()
        if settings.branches[name].streams_of(name)[stream].weights
    ]


def keep_initial_weights(run: RunFolder, sources: Sequence[Path], settings: Settings) -> None:
    """Stores the initial weights of a run in its folder: the branches of other runs (best epoch) or of checkpoints.

    Branches that no source has are initialised from the seed. Raises RunError where two sources have the same branch,
    a source has no branch that the run trains, a branch has other layers, or the run was started with other weights.
    """
    network, weights, videos = build_network(settings), dict[str, Tensor](), set[str]()
    for source in sources:
        path = RunFolder(source).best if source.is_dir() else source
        checkpoint = load_checkpoint(path)
        found = {key: one for key, one in trained_weights(checkpoint).items() if _branch(key) in settings.branches}
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
        own = network.state_dict()
        # Another task has other columns, so its heads are left to the seed.
        found = {key: one for key, one in found.items() if not _other_head(key, one, own)}
        _put(network, found, path)
        weights |= found
        videos |= {*checkpoint.videos}
    if run.last.exists():
        _check_same(run, weights)
    else:
        save_tensors(run.initial_weights, {"weights": weights, "videos": tuple(sorted(videos))})


def load_initial_weights(network: Network, path: Path) -> None:
    """Loads the initial weights of a run into its network. Raises RunError where the network has other layers."""
    _put(network, _stored(path)[0], path)


def seen_by_initial_weights(run: RunFolder) -> tuple[str, ...]:
    """The videos that the initial weights of a run were trained on."""
    return _stored(run.initial_weights)[1] if run.initial_weights.exists() else ()


def branches_with_initial_weights(run: RunFolder) -> set[str]:
    """The branches whose encoders begin with the weights of other runs."""
    return {_branch(key) for key in _stored(run.initial_weights)[0]} if run.initial_weights.exists() else set()


def trained_weights(checkpoint: Checkpoint) -> dict[str, Any]:
    """The weights of a checkpoint, or their EMA if it has one, by the keys of today's networks."""
    weights = checkpoint.ema or checkpoint.network
    return {_key_now(key): tensor for key, tensor in weights.items()}


def _key_now(key: str) -> str:
    """A key of a checkpoint; in earlier ones a branch was its only stream."""
    first, branch, part, *rest = key.split(".")
    return ".".join([first, branch, "streams", branch, part, *rest]) if part == "encoder" else key


def _stored(path: Path) -> tuple[Weights, tuple[str, ...]]:
    values = load_tensors(path)
    return values["weights"], values["videos"]


def _other_head(key: str, tensor: Tensor, own: Weights) -> bool:
    """Whether an entry belongs to the head of another task."""
    same_inputs = key in own and own[key].shape[1:] == tensor.shape[1:]
    return key.split(".")[2] == "head" and same_inputs and own[key].shape != tensor.shape


def _put(network: Network, weights: Weights, path: Path) -> None:
    """Loads whole branches into a network, but for heads. Raises RunError, which names `path`, for other layers."""
    named = {_branch(key) for key in weights}
    state = network.state_dict()
    own = {key: one for key, one in state.items() if _branch(key) not in named or key.split(".")[2] == "head"}
    try:
        network.load_state_dict({**own, **weights})
    except RuntimeError as error:
        remedy = "Give the settings under `model` and `branches` that it was trained with."
        problem = "has other layers than this run, so they cannot be its initial weights"
        raise RunError(problem, path=path, remedy=remedy) from error


def _check_same(run: RunFolder, weights: Weights) -> None:
    """Raises RunError where the run was started with other initial weights."""
    before = _stored(run.initial_weights)[0] if run.initial_weights.exists() else {}
    if before.keys() != weights.keys() or not all(before[key].equal(tensor) for key, tensor in weights.items()):
        remedy = "Resume without --initial-weights, or name another folder."
        raise RunError("was started with other initial weights", path=run.root, remedy=remedy)


def _branch(key: str) -> str:
    """The branch that an entry of a network's state belongs to."""
    return key.split(".")[1]
