"""Aligns faces: five landmarks of a face -> the upright crop of 112 x 112 pixels that face networks take.

Coordinates are pixels (x right, y down) from the image's upper left corner, so that pixel centres are at halves.

Shapes: k points.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from abaw_expr.data.media.images import CROP_SIDE

ARCFACE_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""[5, 2]: the eyes, the nose and the corners of the mouth, left to right, in a crop (Deng et al., ArcFace, CVPR
2019)."""


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rotation, scale and shift, [2, 3], that bring points [k, 2] nearest to target points [k, 2] in least squares.

    A mirror image is never taken for a rotation (Umeyama, IEEE TPAMI 13(4), 1991, eq. 40 to 42). The source points must
    not all be equal.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    centre, goal = source.mean(axis=0), target.mean(axis=0)
    spread = source - centre
    u, singular, vt = np.linalg.svd((target - goal).T @ spread)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    turn = (u * sign) @ vt * (singular @ sign / (spread**2).sum())
    return np.column_stack([turn, goal - turn @ centre])


def crop(image: Image.Image, points: NDArray[np.floating]) -> Image.Image:
    """The face with the landmarks [5, 2], upright, 112 x 112; black beyond the image's edges.

    A face much larger than the crop is averaged down first, since sampling every fifth pixel would be noise.
    """
    matrix = similarity(ARCFACE_TEMPLATE, points)
    shrink = int(np.hypot(*matrix[:, 0]))
    if shrink > 1:
        corners = np.array([(0, 0, 1), (0, CROP_SIDE, 1), (CROP_SIDE, 0, 1), (CROP_SIDE, CROP_SIDE, 1)]) @ matrix.T
        low = np.clip(np.floor(corners.min(axis=0)) - shrink, 0, np.array(image.size) - 1).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + shrink, low + 1, image.size).astype(int)
        image = image.reduce(shrink, (*low.tolist(), *high.tolist()))
        matrix = (matrix - np.column_stack([np.zeros((2, 2)), low])) / shrink
    size = (CROP_SIDE, CROP_SIDE)
    return image.transform(size, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BILINEAR)
