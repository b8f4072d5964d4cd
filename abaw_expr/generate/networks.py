"""The networks of a class-conditional GAN on faces.

The class is a code of weights, so that a face can lie between two classes: the generator's styles are a function of an
identity and of that code. The discriminator scores a face by projection (Miyato and Koyama 2018), with spectral
normalisation (Miyato et al. 2018). Both halve and double maps by 4 x 4 convolutions
(Radford et al. 2016): on a CPU these take half the time of enlarging and convolving.

Shapes: B faces of S x S pixels in [-1, 1], C classes, Z the length of an identity, D features, H x W a map.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, leaky_relu, normalize, relu
from torch.nn.utils.parametrizations import spectral_norm

_HALVINGS = 4
"""From the side of a face to that of the first map."""
_STYLE = 128
_SLOPE = 0.2
_GAIN = 2**0.5
_CELLS, _ORIENTATIONS, _HIDDEN = 8, 8, 256
"""Of the recogniser: cells along a side, directions of a gradient, units."""
_DAMPING, _LEAST = 0.2, 0.05
"""Added to a cell's energy, so that faint gradients stay small; and what is never divided by less."""


def _channels(width: int) -> list[int]:
    """Channels of the maps, from half the side of a face to the smallest."""
    return [width * min(2**level, 4) for level in range(_HALVINGS)]


class Generator(nn.Module):
    """Faces [B, 3, S, S] of identities [B, Z] and class codes [B, C], rows of weights that sum to 1.

    A face does not depend on the others of its batch: its maps are scaled by its own styles.
    """

    def __init__(self, side: int, classes: int, identity: int, width: int) -> None:
        super().__init__()
        widths = _channels(width)[::-1]
        self._first = side // 2**_HALVINGS
        self.identity = nn.Linear(identity, _STYLE)
        self.classes = nn.Linear(classes, _STYLE)
        self.style = nn.Linear(_STYLE, _STYLE)
        self.start = nn.Linear(_STYLE, widths[0] * self._first**2)
        self.first = ModulatedConvolution(widths[0], widths[0], _STYLE)
        self.doublings = nn.ModuleList(
            ModulatedConvolution(before, after, _STYLE, doubles=True) for before, after in pairwise(widths)
        )
        self.colour = nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """Styles and the first map have variance 1, and identity and class the same part of it."""
        nn.init.normal_(self.classes.weight)
        for layer in (self.identity, self.style, self.start):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        for layer in (self.identity, self.classes, self.style, self.start):
            nn.init.zeros_(layer.bias)

    def forward(self, identity: Tensor, code: Tensor) -> Tensor:
        known = self.identity(normalize(identity, dim=1) * identity.shape[1] ** 0.5)
        style = _activate(self.style(_activate((known + self.classes(code)) / 2**0.5)))
        x = self.start(style).unflatten(1, (-1, self._first, self._first))
        for layer in (self.first, *self.doublings):
            x = _activate(layer(x, style))
        return self.colour(x).tanh()


def _activate(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return leaky_relu(x, _SLOPE) * _GAIN


class ModulatedConvolution(nn.Module):
    """A convolution whose weights are scaled, and normalised, for every sample by its style (Karras et al. 2020).

    [B, D, H, W] to [B, D', H, W], or doubled in height and width. Scaling the maps before and behind the convolution is
    the same as scaling its weights, and all samples share one convolution.
    """

    def __init__(self, before: int, after: int, style: int, doubles: bool = False) -> None:
        super().__init__()
        self._doubles = doubles
        side = 4 if doubles else 3
        shape = (before, after, side, side) if doubles else (after, before, side, side)
        # Of any scale, as it is normalised; as small as other layers' weights it learns as fast as they do.
        self.weight = nn.Parameter(torch.randn(shape) * (before * side**2) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = nn.Linear(style, before)
        nn.init.ones_(self.scale.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale = self.scale(style)
        squares = self.weight.square().sum(dim=(2, 3))  # of taps
        if self._doubles:
            # Each pixel of the doubled map is made of a quarter of the taps.
            norm = (scale.square() @ (squares / 4) + 1e-8).rsqrt()
            x = conv_transpose2d(x * scale[..., None, None], self.weight, stride=2, padding=1)
        else:
            norm = (scale.square() @ squares.T + 1e-8).rsqrt()
            x = conv2d(x * scale[..., None, None], self.weight, padding=1)
        return x * norm[..., None, None] + self.bias[:, None, None]


class Discriminator(nn.Module):
    """Scores [B] of faces [B, 3, S, S] as faces of their class, whose codes are [B, C]."""

    def __init__(self, side: int, classes: int, width: int) -> None:
        super().__init__()
        widths = _channels(width)
        self.halvings = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)) for before, after in pairwise([3, *widths])
        )
        self.last = spectral_norm(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1))
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = spectral_norm(nn.Linear(classes, widths[-1], bias=False))

    def forward(self, faces: Tensor, code: Tensor) -> Tensor:
        x = faces
        for halving in self.halvings:
            x = _activate(halving(x))
        # The deviation over the batch, one more channel, shows a generator that repeats itself (Karras et al. 2018).
        spread = x.std(dim=0, correction=0).mean().expand(len(x), 1, *x.shape[2:])
        x = _activate(self.last(torch.cat([x, spread], dim=1))).sum(dim=(2, 3))
        return self.score(x)[:, 0] + (x * self.projection(code)).sum(dim=1)


class Recogniser(nn.Module):
    """Logits [B, C] of the class that faces [B, 3, S, S] show: histograms of oriented gradients (Dalal and Triggs
    2005), which can be differentiated, and two layers.

    The discriminator cannot do this: what separates expressions is small beside what separates real from generated
    faces, and spectral normalisation keeps it small. Histograms do from the first steps what convolutions learn of some
    thousand faces in hours.
    """

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        self._cell = side // _CELLS
        self.directions: Tensor
        angles = torch.arange(_ORIENTATIONS) * (2 * torch.pi / _ORIENTATIONS)
        self.register_buffer("directions", torch.stack([angles.cos(), angles.sin()])[..., None, None], persistent=False)
        cells = (side - 2 - self._cell) // (self._cell // 2) + 1
        self.hidden = nn.Linear(_ORIENTATIONS * cells**2, _HIDDEN)
        self.dropout = nn.Dropout(0.5)
        self.classes = nn.Linear(_HIDDEN, classes)

    def forward(self, faces: Tensor) -> Tensor:
        return self.classes(self.dropout(relu(self.hidden(self._histograms(faces)))))

    def _histograms(self, faces: Tensor) -> Tensor:
        """Of gradients of the standardised grey face, in cells that overlap by half, by the energy around each cell."""
        grey = faces.mean(dim=1, keepdim=True)
        grey = (grey - grey.mean(dim=(2, 3), keepdim=True)) / (grey.std(dim=(2, 3), keepdim=True) + _LEAST)
        across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        oriented = relu(across * self.directions[0] + down * self.directions[1])
        cells = avg_pool2d(oriented, self._cell, stride=self._cell // 2)
        energy = avg_pool2d(cells.square().sum(dim=1, keepdim=True), 3, stride=1, padding=1)
        return (cells / ((energy + _LEAST**2).sqrt() + _DAMPING)).flatten(1)
