"""Joins of the streams of a branch, and their registry.

Shapes: B samples, D features of a stream, W features of the join.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn


class Join(nn.Module):
    """Streams by name, [B, D] each with zeros where its modality is absent, to [B, `width`]."""

    width: int
    """Features that come out, W."""

    def forward(self, streams: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError


class Concatenation(Join):
    """The features of all streams side by side."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(widths)

    def forward(self, streams: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([*streams.values()], dim=-1)


JOINS: dict[str, Callable[[Sequence[int]], Join]] = {"concatenation": Concatenation}
"""By name: from the widths of the streams to the join; a new one is added here."""
