"""CLIP's tensors as the library transformers names them, under open_clip's names.

Shapes: D features of a transformer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from abaw_expr.models.encoders.weights import key_map

_OF_BOTH = "vision_model."
_TRANSPOSED = ("text_projection", "visual.proj")
"""Projections, which one library keeps as a linear layer and the other as a matrix to multiply with."""


def open_clip_names(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under open_clip's names; those of another library than transformers as they are.

    Of attention, q, k and v [D, D] become one tensor [3 D, D].
    """
    if not any(key.startswith(_OF_BOTH) for key in found):
        return {**found}
    naming = key_map("clip_hf")
    named = {naming.official(key): tensor for key, tensor in found.items() if not naming.is_unused(key)}
    named |= {key: named[key].T for key in _TRANSPOSED if key in named}
    for first in [key for key in named if ".attn.q_proj_" in key]:
        parts = [first.replace("q_proj", f"{one}_proj") for one in "qkv"]
        if all(part in named for part in parts):  # else the names that are missing are told
            named[first.replace("q_proj", "in_proj")] = torch.cat([named.pop(part) for part in parts])
    return named
