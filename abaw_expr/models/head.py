"""Heads of branches, from features to logits, and their registry.

Shapes: B samples, D features, C columns of the task, E numbers of a text's embedding.
"""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor, nn

from abaw_expr.models.encoders.clip_networks import CLIP
from abaw_expr.settings import ModelSettings, known_entry

_TEMPERATURE = 0.07
"""The temperature that CLIP's training began with."""


class CosineHead(nn.Module):
    """Features [B, D] to their cosine with the embedding of each class's text, divided by a learned temperature.

    The image side learns, the texts do not: where the features are of CLIP's image side (D = E), an adapter (a
    bottleneck of D / 4, mixed with its input; D: half and half, after Gao et al., CLIP-Adapter), else a linear layer to
    E. Cross-entropy of these logits is CLIP's contrastive loss with the classes' texts as the candidates.
    """

    texts: Tensor

    def __init__(self, width: int, columns: int, settings: ModelSettings) -> None:
        super().__init__()
        text_width = known_entry(CLIP, settings.text_encoder, "CLIP's text encoder").width
        self.project: nn.Module = Adapter(width) if width == text_width else nn.Linear(width, text_width)
        self.log_scale = nn.Parameter(torch.tensor(-log(_TEMPERATURE)))
        # Texts are encoded when training starts; a checkpoint has them.
        self.register_buffer("texts", torch.zeros(columns, text_width))

    def forward(self, x: Tensor) -> Tensor:
        cosines = nn.functional.normalize(self.project(x), dim=-1) @ self.texts.to(x.dtype).T
        return cosines * self.log_scale.exp()


class Adapter(nn.Module):
    """A bottleneck beside its input, [B, D] to [B, D]: the mean of both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)) / 2


HEADS: dict[str, Callable[[int, int, ModelSettings], nn.Module]] = {
    "linear": lambda width, columns, settings: nn.Linear(width, columns),
    "cosine": CosineHead,
}
"""By name: from the number of features, the columns and the settings to the head; a new one is added here."""
