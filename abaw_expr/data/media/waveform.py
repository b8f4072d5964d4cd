"""Samples of sound as the store keeps them: 16 kHz, mono, int16, 2.9 GB in 25 hours.

Shapes: n samples.
"""

import numpy as np

FULL_SCALE = 2**15
"""The int16 value of a sample of 1."""


def to_int16(samples: np.ndarray) -> np.ndarray:
    """int16 [n] of samples float32 [n] in [-1, 1]; what is beyond is cut off."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
