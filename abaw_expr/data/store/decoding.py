"""Crops of a store as tensors.

Shapes: h x w pixels of a crop.
"""

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize

from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.store.store import StoredVideo


def decode_crop(video: StoredVideo, row: int) -> Tensor | None:
    """A frame's crop, uint8 [3, h, w]; None where it cannot be decoded."""
    data = video.jpeg(row)
    if not data:
        return None
    try:
        picture = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    same = picture.shape[-2:] == (CROP_SIDE, CROP_SIDE)
    return picture if same else resize(picture, [CROP_SIDE, CROP_SIDE], antialias=True)
