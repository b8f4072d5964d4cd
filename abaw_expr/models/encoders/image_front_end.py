"""Front end of encoders that were trained on images of another size, mean and deviation.

Shapes: B images of S x S pixels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]."""


class ImageFrontEnd(nn.Module):
    """RGB [B, 3, 112, 112] in [-1, 1] to [B, 3, S, S], minus the mean and divided by the deviation, and resized.

    Resizing is linear and keeps constants, so the order of the two does not matter, and small images are normalised in
    a fraction of the time.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, side: int, mean: Sequence[float], std: Sequence[float], interpolation: str = "bicubic") -> None:
        super().__init__()
        self.side, self._mode = side, interpolation
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.settings: Mapping[str, object] = {
            **{"side": side, "mean": [*mean], "std": [*std], "interpolation": interpolation}
        }

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.mean.to(x.dtype), self.std.to(x.dtype)
        x = x * (0.5 / std) + (0.5 - mean) / std
        if x.shape[-1] == self.side:
            return x
        return interpolate(x, (self.side, self.side), mode=self._mode, align_corners=False, antialias=True)
