"""Attention between modalities at each moment, of the leader-follower network (arXiv 2503.10523).

Shapes: B samples, S streams, D features of a stream, H heads, 16 features of a head.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTH = 32
"""Features of a stream in query, key and value."""
HEADS = 2


class CrossModalAttention(nn.Module):
    """The features of the streams of a sample, [B, D] each, to [B, `width`] that know of one another.

    Each stream is brought to query, key and value by one linear layer, laid out head by head. In each head the queries
    of all streams attend to the keys of all streams, and V is added to the attention-weighted V. What the heads give
    (in the order head, stream, feature) passes a linear layer, dropout and layer normalisation; there is no shortcut.

    A stream that a sample lacks is neither key nor value there: nothing is attended to in it, and its V is 0.
    """

    def __init__(self, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.width = len(widths) * WIDTH
        self.project = nn.ModuleList(nn.Linear(width, 3 * WIDTH) for width in widths)
        self.mix = nn.Linear(self.width, self.width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(self.width)

    def forward(self, streams: Sequence[Tensor], present: Tensor) -> Tensor:
        """`present`, bool [B, S], says which streams a sample has."""
        attention, value = self.attend(streams, present)
        return self.norm(self.dropout(self.mix((attention @ value + value).flatten(1))))

    def attend(self, streams: Sequence[Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
        """The attention of each stream (query) to each stream (key), [B, H, S, S], and the values, [B, H, S, 16]."""
        projected = torch.stack([project(x) for project, x in zip(self.project, streams, strict=True)], 1)
        query, key, value = projected.unflatten(-1, (HEADS, -1)).transpose(1, 2).chunk(3, dim=-1)  # [B, H, S, 16] each
        scores = query @ key.mT / query.shape[-1] ** 0.5
        # Not minus infinity: the softmax of a sample that has no stream would be NaN.
        scores = scores.masked_fill(~present[:, None, None], torch.finfo(scores.dtype).min)
        return scores.softmax(-1), value.masked_fill(~present[:, None, :, None], 0.0)
