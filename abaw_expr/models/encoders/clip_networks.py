"""CLIP's networks by open_clip's name; it imports no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class ClipNetwork(NamedTuple):
    """What several libraries call one of CLIP's networks."""

    image: str
    """timm's name of the image side."""
    weights: str
    """The weights that `default` are, by open_clip's name."""
    width: int
    """Numbers of an embedding, of images and of texts."""

    @property
    def timm_weights(self) -> str:
        """The same weights by timm's name: `openai` or `laion2b`."""
        return self.weights.partition("_")[0]


CLIP: Mapping[str, ClipNetwork] = MappingProxyType(
    {
        "ViT-B-32": ClipNetwork("vit_base_patch32_clip_224", "laion2b_s34b_b79k", 512),
        "ViT-B-16": ClipNetwork("vit_base_patch16_clip_224", "laion2b_s34b_b88k", 512),
        "ViT-L-14": ClipNetwork("vit_large_patch14_clip_224", "laion2b_s32b_b82k", 768),
        "ViT-B-32-quickgelu": ClipNetwork("vit_base_patch32_clip_quickgelu_224", "openai", 512),
        "ViT-B-16-quickgelu": ClipNetwork("vit_base_patch16_clip_quickgelu_224", "openai", 512),
        "ViT-L-14-quickgelu": ClipNetwork("vit_large_patch14_clip_quickgelu_224", "openai", 768),
    }
)
"""QuickGELU belongs to OpenAI's weights, GELU to LAION's; a file does not say which it is."""
