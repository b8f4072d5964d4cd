"""How far apart two sets of faces are, in the features of an encoder.

Frechet distance (Heusel et al. 2017) with an encoder of the user's choice instead of the Inception network, so values
compare only where encoder, size and number of faces are the same. It is biased upwards for few faces. The kernel
distance (Binkowski et al. 2018) is not, and serves classes, which have few.

Shapes: n and m faces, D features.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from abaw_expr.generate.faces import as_float
from abaw_expr.models.encoders.encoder import Encoder

_BATCH = 32


@torch.inference_mode()
def features(encoder: Encoder, faces: Tensor) -> np.ndarray:
    """float64 [n, D], an encoder's features of faces uint8 [n, 3, S, S] of any side."""
    encoder.eval()
    return np.concatenate([encoder.features(x[:, None])[:, 0].double().numpy() for x in _inputs(encoder, faces)])


def _inputs(encoder: Encoder, faces: Tensor) -> Iterator[Tensor]:
    """Batches float32 [B, 3, 112, 112] in [-1, 1], of the size that encoders of images take."""
    side = encoder.input_shape[-1]
    for part in faces.split(_BATCH):
        x = as_float(part)
        if x.shape[-1] != side:
            x = interpolate(x, (side, side), mode="bicubic", align_corners=False, antialias=True)
        yield x.clamp(-1, 1)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance between normal distributions with the moments of features [n, D] and [m, D].

    |mean difference|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)), with covariances A and B; the last trace is that of the
    singular values of the centred features' product, so no root of a D x D matrix is needed.
    """
    centred = [(x - x.mean(axis=0)) / np.sqrt(max(len(x) - 1, 1)) for x in (a, b)]
    shift = float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum())
    traces = sum(float(np.square(x).sum()) for x in centred)
    shared = float(np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum())
    return max(shift + traces - 2 * shared, 0.0)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of features [n, D] and [m, D] with the kernel (x y / D + 1)^3.

    Near 0, and then on either side of it, where both sets are of one distribution. NaN for sets of fewer than two.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        return float("nan")
    return _mean_of_pairs(a) + _mean_of_pairs(b) - 2 * float(_kernel(a, b).mean())


def _mean_of_pairs(x: np.ndarray) -> float:
    """Mean of the kernel over pairs of different rows."""
    kernel = _kernel(x, x)
    return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)
