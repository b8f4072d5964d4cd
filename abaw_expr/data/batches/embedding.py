"""The modality of embeddings: rows that an encoder, or a team's own network, made of every frame once.

Shapes: k samples with an embedding, D features.
"""

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.modality import Modality, Part
from abaw_expr.data.store.arrays import release


class Embedding(Modality):
    """Rows [k, 1, D, 1, 1], float16, on the device float32."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, index: FrameIndex, samples: Samples, rows: np.ndarray, augment: Augment | None) -> Part:
        indices = samples.indices[rows]
        video, frame = index.video[indices], index.row[indices]
        width = index.videos[0].embedding(self._name).shape[1]
        x = np.empty((len(rows), width), np.float16)
        for number in np.unique(video):
            own = video == number
            known = index.videos[number].embedding(self._name)
            x[own] = known[frame[own]]
            release(known)
        return Part(torch.from_numpy(x)[:, None, :, None, None], torch.from_numpy(rows))

    def on_device(self, part: Part, augment: Augment | None, noise: Tensor | None) -> Tensor:
        return part.x.float()
