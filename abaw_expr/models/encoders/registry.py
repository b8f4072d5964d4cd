"""The registry of encoders by the name of their branch.

Shapes: B samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from abaw_expr.models.encoders import mcnn, rhcnn
from abaw_expr.settings import ModelSettings


@dataclass(frozen=True)
class Encoder:
    """An encoder of a branch: it maps [B, *input_shape] to feature maps [B, width, ...]."""

    build: Callable[[ModelSettings], nn.Module]
    width: int
    input_shape: tuple[int, int, int]


ENCODERS = {
    "audio": Encoder(lambda s: mcnn.MCNN(s.attention, s.attention_groups), mcnn.WIDTH, mcnn.INPUT_SHAPE),
    "visual": Encoder(
        lambda s: rhcnn.RHCNN(s.attention, s.attention_groups, s.mixing_groups), rhcnn.WIDTH, rhcnn.INPUT_SHAPE
    ),
}
"""The registry of encoders by branch; a new encoder is added here."""
