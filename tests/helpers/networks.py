"""Small inputs of every encoder, networks over them, and what is asked of both.

Shapes: B samples, C x H x W one view, K classes.
"""

import torch
from torch import Tensor, nn

from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.models.network import Branch, Network, build_network
from abaw_expr.settings import ModelSettings

BRANCHES = tuple(ENCODERS)
# The encoders are convolutional and pool globally: small inputs run the same code in a tenth of the time.
SMALL = {name: (encoder.input_shape[0], 48, 48) for name, encoder in ENCODERS.items()}


def batch(samples: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(samples, *shape, generator=generator) for name, shape in SMALL.items()}


def everywhere(samples: int) -> dict[str, Tensor]:
    return {name: torch.ones(samples, dtype=torch.bool) for name in BRANCHES}


def run(net: Network, inputs: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's answer, every branch given the samples that have its modality."""
    rows = {name: present[name].nonzero().flatten() for name in net.branches}
    samples = len(next(iter(present.values())))
    return net({name: inputs[name][rows[name]] for name in net.branches}, rows, {}, samples)


def network(seed: int = 0, branches: tuple[str, ...] = BRANCHES) -> Network:
    torch.manual_seed(seed)
    return build_network(ModelSettings(branches=branches, dropout=0.0), n_classes=8)


def branch(name: str) -> Branch:
    built = network(branches=(name,)).branches[name]
    assert isinstance(built, Branch)
    return built


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def statistics(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in module.buffers()]
