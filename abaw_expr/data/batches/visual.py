"""The modality visual: face crops of and around frames.

Shapes: k samples with a crop, f images a sample, h x w pixels.
"""

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.modality import Modality, Part
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.store.stored_crops import decode_crop
from abaw_expr.settings import DataSettings


class Visual(Modality):
    """Images [k, f, 3, h, w], uint8, on the device float32 in [-1, 1]."""

    def __init__(self, data: DataSettings) -> None:
        self._offsets = (np.arange(data.frames_per_sample) - (data.frames_per_sample - 1) / 2) * data.spacing

    def read(self, index: FrameIndex, samples: Samples, rows: np.ndarray, augment: Augment | None) -> Part:
        # Channels last in memory, as the decoder returns images and as the networks take them.
        shape = (len(rows), len(self._offsets), CROP_SIDE, CROP_SIDE, 3)
        images = torch.empty(shape, dtype=torch.uint8).movedim(4, 2)
        whole: list[int] = []
        for row in rows.tolist():
            frames = self._frames(index, int(samples.indices[row]))
            if frames is None:
                continue
            if augment is not None and samples.noise is not None:
                frames = augment.crop(frames, torch.from_numpy(samples.noise[row]))
            images[len(whole)] = frames
            whole.append(row)
        return Part(images[: len(whole)], torch.tensor(whole, dtype=torch.int64))

    def on_device(self, part: Part, augment: Augment | None, noise: Tensor | None) -> Tensor:
        images = part.x.float().div_(127.5).sub_(1)
        return images if augment is None or noise is None else augment.jitter_(images, noise[part.rows])

    def _frames(self, frame_index: FrameIndex, index: int) -> Tensor | None:
        """uint8 [f, 3, h, w]: for each offset the crop nearest in time; None where none of them can be decoded."""
        video, row = frame_index.videos[frame_index.video[index]], int(frame_index.row[index])
        if len(self._offsets) == 1:
            own = decode_crop(video, row)
            return None if own is None else own[None]
        frames = video.frames
        crops = np.flatnonzero(frames.has_crop)
        wanted = frames.time[row] + self._offsets
        nearest = crops[np.abs(frames.time[crops][None] - wanted[:, None]).argmin(axis=1)]
        images = [decode_crop(video, int(near)) for near in nearest]
        decoded = [image for image in images if image is not None]
        return torch.stack([decoded[0] if image is None else image for image in images]) if decoded else None
