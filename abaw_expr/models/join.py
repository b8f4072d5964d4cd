"""Joins of the streams of a branch, and their registry.

Shapes: B samples, S streams, D features of a stream, H x W positions of its feature map, W features of the join.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from abaw_expr.models.cross_modal_attention import CrossModalAttention
from abaw_expr.models.dilated_fusion import DilatedFusion
from abaw_expr.settings import ModelSettings

FUSED_WIDTH = 128
"""Channels of each stream, and of their fusion, in the dilated fusion (S, version 1)."""
FUSED_SIDE = 7
"""Positions of its maps, along both sides."""

_NOTHING = 1e-6
"""The sum of activities up to which nothing is active."""


class Join(nn.Module):
    """Streams by name, [B, D] each with zeros where its modality is absent, to [B, `width`]."""

    width: int
    """Features that come out, W."""
    of_maps: ClassVar[bool] = False
    """Whether it joins the streams' feature maps, [B, D, H, W] each, and not their means."""

    def forward(self, streams: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        """`weights`, float32 [B, S] in the order of the streams, are 0 of a stream that a sample lacks; else they sum
        to 1."""
        raise NotImplementedError


class Concatenation(Join):
    """The features of all streams side by side."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(widths)

    def forward(self, streams: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        return torch.cat([*streams.values()], dim=-1)


class CrossAttention(Join):
    """The features of the first stream, and beside them the attention between all streams (arXiv 2503.10523)."""

    def __init__(self, widths: Sequence[int], settings: ModelSettings) -> None:
        super().__init__()
        self.attention = CrossModalAttention(widths, settings.dropout)
        self.width = widths[0] + self.attention.width

    def forward(self, streams: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        features = [*streams.values()]
        return torch.cat([features[0], self.attention(features, weights > 0)], dim=-1)


class Dilated(Join):
    """Multi-scale dilated fusion of feature maps (arXiv 2503.11935, version 1).

    Each stream's map is brought to 7 x 7 positions by pooling and to 128 channels by a 1x1 convolution, and weighed.
    The mean over the fused map comes out. Samples without any stream have no part in BN.
    """

    width = FUSED_WIDTH
    of_maps = True

    def __init__(self, widths: Sequence[int], settings: ModelSettings) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(width, FUSED_WIDTH, 1) for width in widths)
        channels = len(widths) * FUSED_WIDTH
        self.fusion = DilatedFusion(channels, FUSED_WIDTH, settings.dilations, settings.squared_gate)

    def forward(self, streams: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        maps = [
            narrow(adaptive_avg_pool2d(x, FUSED_SIDE)) for narrow, x in zip(self.narrow, streams.values(), strict=True)
        ]
        weighed = torch.stack(maps, 1) * weights.to(maps[0].dtype)[..., None, None, None]  # [B, S, 128, 7, 7]
        # On the meta device, where a network is described, there are no values to choose by.
        rows = torch.arange(len(weights)) if weights.is_meta else weights.any(1).nonzero()[:, 0]
        fused = self.fusion(weighed.flatten(1, 2)[rows]).mean((2, 3))
        return fused.new_zeros(len(weights), self.width).index_copy(0, rows, fused)


def equal_weights(present: Tensor) -> Tensor:
    """float32 [B, S]: of a sample's streams the same, of those that it has not 0; they sum to 1 where it has any."""
    return present / present.sum(1, keepdim=True).clamp(min=1)


def key_frame_weights(activity: Tensor, present: Tensor) -> Tensor:
    """Key-frame alignment: a stream's fraction of the activity of all streams, float32 [B, S].

    Of sound and images it is w_a = s / (s + e), w_v = 1 - w_a, for the voice activity s and the entropy change e
    (`activity` [B, S]). Of streams that a sample has not it is 0; where nothing is active, all that it has weigh the
    same. They sum to 1 where it has any.
    """
    active = activity * present
    total = active.sum(1, keepdim=True)
    return torch.where(total > _NOTHING, active / total.clamp(min=_NOTHING), equal_weights(present))


JOINS: dict[str, Callable[[Sequence[int], ModelSettings], Join]] = {
    "concatenation": lambda widths, settings: Concatenation(widths),
    "cross-attention": CrossAttention,
    "dilated": Dilated,
}
"""By name: from the widths of the streams to the join; a new one is added here."""
