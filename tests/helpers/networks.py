"""Small inputs of every modality, networks over them, and what is asked of both.

Shapes: B samples, C x H x W one view.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from abaw_expr.models.branch import Branch
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.links import Votes
from abaw_expr.models.network import Network, build_network
from abaw_expr.settings import ModelSettings, Settings, StreamSettings
from tests.helpers.branches import BRANCHES

SMALL = {"audio": (1, 48, 48), "visual": (3, 48, 48)}
"""By modality. The encoders are convolutional and pool globally: small inputs run the same code in a tenth of the
time."""
PLAIN = Settings(model=ModelSettings(dropout=0.0))
"""Two branches without dropout."""


def batch(samples: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(samples, 1, *shape, generator=generator) for name, shape in SMALL.items()}


def everywhere(samples: int) -> dict[str, Tensor]:
    return {name: torch.ones(samples, dtype=torch.bool) for name in SMALL}


def run(net: Network, inputs: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Votes]:
    """The network's votes, every encoder given the samples [B, V, C, H, W] that have its modality."""
    rows = {name: has.nonzero().flatten() for name, has in present.items()}
    valid = torch.ones(len(next(iter(present.values()))), dtype=torch.bool)
    return net({name: inputs[name][rows[name]] for name in rows}, rows, {}, valid)


def values(net: Network, inputs: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """The values of the network's votes by branch; of classes log probabilities [B, C]."""
    return {name: vote.value for name, vote in run(net, inputs, present).items()}


def network(seed: int = 0, branches: tuple[str, ...] = BRANCHES, settings: Settings = PLAIN) -> Network:
    torch.manual_seed(seed)
    return build_network(settings.only(branches))


def branch(name: str) -> Branch:
    return network(branches=(name,)).own_branches()[name]


def encoder(name: str, model: ModelSettings = PLAIN.model, attention: str = "") -> Encoder:
    """An encoder of the registry, initialised."""
    built = build_encoder(StreamSettings(name, attention), model)
    built.initialise()
    return built


def over_time(temporal: str, sequence: int, settings: Settings = PLAIN) -> Settings:
    """Settings whose branches all have a temporal model over stretches of that many frames."""
    branches = {name: replace(one, temporal=temporal) for name, one in settings.branches.items()}
    return replace(settings, branches=branches, data=replace(settings.data, sequence=sequence))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def statistics(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in module.buffers()]
