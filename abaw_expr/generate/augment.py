"""Differentiable augmentation (Zhao et al., NeurIPS 2020): the discriminator sees real and generated faces changed in
the same ways, so that it cannot learn the few real faces by heart, and gradients reach the generator through it.

Random numbers are torch's global ones.

Shapes: B faces of S x S pixels in [-1, 1].
"""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_SHIFT = 1 / 8
"""Of a face's side, in each direction."""
_CUT = 1 / 2
"""Side of the square that is cut out, as a fraction of the face's."""


def augment(faces: Tensor) -> Tensor:
    """Faces [B, 3, S, S] with random brightness, saturation and contrast, moved, and with a square cut out."""
    return _cut(move(_colours(faces)))


def _colours(x: Tensor) -> Tensor:
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, device=x.device)
    x = x + brightness - 0.5
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * 2 * saturation
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def move(x: Tensor) -> Tensor:
    """Faces [B, 3, S, S] moved by whole pixels, so that no face is blurred; what comes in is grey (0)."""
    side = x.shape[-1]
    most = round(side * _SHIFT)
    pixels = torch.randint(-most, most + 1, (len(x), 2), device=x.device)
    transform = torch.eye(2, 3, device=x.device).expand(len(x), 2, 3).clone()
    transform[:, :, 2] = 2 * pixels / side
    grid = affine_grid(transform, list(x.shape), align_corners=False).to(x.dtype)
    return grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _cut(x: Tensor) -> Tensor:
    side = x.shape[-1]
    centre = torch.randint(0, side, (2, len(x), 1), device=x.device)
    near = (torch.arange(side, device=x.device) - centre).abs() < side * _CUT / 2  # [2, B, S]
    return x * ~(near[0, :, :, None] & near[1, :, None, :])[:, None]
