"""Decodes the crops of a store to tensors.

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
        image = decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    same = image.shape[-2:] == (CROP_SIDE, CROP_SIDE)
    return image if same else resize(image, [CROP_SIDE, CROP_SIDE], antialias=True)
