"""What encoders of sound with a front end of their own have in common.

Shapes: B samples, G chunks of n samples of sound, T rows or states of a chunk, D features.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from abaw_expr.data.media.waveform import FULL_SCALE
from abaw_expr.models.encoders.encoder import Encoder


class SoundEncoder(Encoder):
    """An encoder of samples of sound, whose `forward` gives maps of one position, [B, 1, 1, n] to [B, D, 1, 1]."""

    modality = "waveform"

    def samples(self, x: Tensor) -> Tensor:
        """Sound [G, n] in [-1, 1], float32 or wider, of int16 or floats [G, 1, 1, n]."""
        wide = x[:, 0, 0].to(torch.promote_types(next(self.parameters()).dtype, torch.float32))
        return wide if x.is_floating_point() else wide / FULL_SCALE

    @abstractmethod
    def of_windows(self, samples: Tensor, chunk: Tensor, step: Tensor) -> Tensor:
        """Features [B, D] of windows in chunks of sound [G, n]: the chunk, and the first step in it, of each, [B]."""

    def features(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """Features [B, 1, D] of windows in chunks, or of single windows, as `MCNN.features`."""
        if windows is None:
            return super().features(x)
        return self.of_windows(self.samples(x), *windows.unbind(1))[:, None]

    def maps(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """The features as maps of one position, [B, 1, D, 1, 1]."""
        return self.features(x, windows)[..., None, None]


def rows_from(rows: Tensor, chunk: Tensor, step: Tensor, count: int) -> Tensor:
    """`count` rows from a step on, [B, count, ...], of chunks [G, T, ...]; the last one is repeated beyond the end."""
    places = (step[:, None] + torch.arange(count, device=step.device)).clamp(max=rows.shape[1] - 1)
    return rows[chunk[:, None], places]
