"""What every encoder is: a network over one modality that owns its pooling, initialisation and time context.

Shapes: B samples, V views of a sample (images evenly spaced in time; audio has one), C x H x W one view, D features.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.errors import RunError
from abaw_expr.models.encoders.attention import Attention
from abaw_expr.models.encoders.weights import fit, key_map


class Encoder(nn.Module):
    """A network over one modality, whose `forward` gives the feature maps of views: [B, C, H, W] to [B, D, H', W'].

    What a subclass does not say otherwise: its features are the mean over the map, it keeps the weights that it was
    built with, and takes no attention. Images come as RGB in [-1, 1], 112 x 112 pixels, audio as log-mel standardised
    by recording; what else a network wants (another side, mean and standard deviation) it makes of these.
    """

    modality: str
    """What it reads: a name of `MODALITIES`."""
    width: int
    """Features of a sample, D."""
    input_shape: tuple[int, int, int]
    """C x H x W of one view."""
    window: ClassVar[AudioWindow | None] = None
    """The stretch of audio around a frame that it reads; None for images."""
    keys: ClassVar[tuple[str, ...]] = ()
    """Names of the key maps of official files that can be its weights (`weights.key_map`)."""
    front_end: Mapping[str, object] = MappingProxyType({})
    """What it makes of images or of sound before its first layer; embeddings say it."""
    places: ClassVar[Mapping[str, int]] = {}
    """Channels of the feature maps that attention can be put on, by place, of which `forward` calls `attended`."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = type(self).__name__.lower()
        """Its name in the registry."""
        self.untrained = ""
        """What a file of weights did not have and could not be expected to have; else empty."""
        self.attention: Attention | None = None
        self._place = ""

    def attend(self, attention: Attention, place: str) -> None:
        """Puts attention on a feature map."""
        self.attention, self._place = attention, place

    def attended(self, x: Tensor, place: str) -> Tensor:
        """The feature map of a place, weighed where the attention is on it."""
        return self.attention(x) if self.attention is not None and place == self._place else x

    def features(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """Pooled features [B, V, D] of samples [B, V, C, H, W]; `windows` is for encoders of audio."""
        assert windows is None
        return self(x.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, x.shape[:2])

    def maps(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """The feature maps [B, V, D, H', W'] of the same samples."""
        assert windows is None
        return self(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def penalty(self) -> Tensor | None:
        """A loss of its own that training adds, [], of the last forward pass; None where there is none."""
        return None

    def initialise(self) -> None:
        """Draws initial weights from torch's global seed; by default the weights stay as they were built or loaded."""

    def load(self, found: Mapping[str, Tensor], path: Path, what: str = "") -> None:
        """Loads the tensors of a file as a whole; `what` names the setting. Raises RunError as `weights.fit`."""
        fit(self, found, path, [*map(key_map, self.keys)], what)

    def download(self) -> None:
        """Loads the weights that its library downloads. Raises RunError where there are none, or no network is."""
        remedy = "Name a file of weights."
        raise RunError(f"the encoder {type(self).__name__} has no weights to download", remedy=remedy)

    def stages(self) -> list[nn.Module]:
        """Its parts from input to output, in which a frozen encoder is released; by default its children."""
        return [*self.children()]

    def attention_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that get the learning rate of attention and heads."""
        for module in self.modules():
            if isinstance(module, Attention):
                yield from module.parameters()


def he_initialise(module: nn.Module) -> None:
    """He initialisation of all convolutions (D), in the order of `Module.apply`; other layers keep torch's default."""
    module.apply(_he)


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
