"""The modalities of sound: windows of log-mel, or of samples, around frames.

Neighbouring frames share almost all of their audio window, so a batch holds audio in chunks that cover several windows.

Shapes: b samples, k of them with audio, g chunks of t steps and m mel bands, or of w samples of sound.
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.batches.audio_chunks import Cut
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.modality import Modality, Part
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.store.store import StoredVideo

_LEAST_STD = 0.1
"""Least standard deviation by which a mel band is divided, so that a silent recording stays finite."""


class Sound(Modality):
    """Chunks of sound, and the window of each sample in them."""

    _dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, cut: Cut) -> None:
        self._cut = cut

    def read(self, index: FrameIndex, samples: Samples, rows: np.ndarray, augment: Augment | None) -> Part:
        indices = samples.indices[rows]
        video, start = index.video[indices], self._cut.window.start(index.time[indices])
        cut = self._cut(video if samples.group is None else samples.group[rows], start)
        chunk_video = np.empty(len(cut.first), np.int64)
        chunk_video[cut.chunk] = video
        chunks = torch.zeros(len(chunk_video), 1, *self._shape(cut.steps), dtype=self._dtype)
        for chunk, i, first in zip(chunks.numpy()[:, 0], chunk_video, cut.first, strict=True):
            self._fill(index.videos[i], int(first), chunk)
        windows = torch.from_numpy(np.stack([cut.chunk, start - cut.first[cut.chunk]], axis=1))
        return Part(chunks, torch.from_numpy(rows), windows)

    def segments(self, index: FrameIndex, indices: np.ndarray) -> np.ndarray:
        return self._cut.window.start(index.time[indices]) // self._cut.window.segment

    @abstractmethod
    def _shape(self, steps: int) -> tuple[int, int]:
        """The shape of a chunk of so many steps."""

    @abstractmethod
    def _fill(self, video: StoredVideo, first: int, out: np.ndarray) -> None:
        """Fills a chunk of zeros with audio from step `first` on."""


class Audio(Sound):
    """Log-mel: chunks float32 [g, 1, t, m], standardised."""

    def on_device(self, part: Part, augment: Augment | None, noise: Tensor | None) -> Tensor:
        """Masks frequencies and time; a chunk by the random numbers of its first sample."""
        if augment is None or noise is None:
            return part.x
        assert part.windows is not None
        first = torch.zeros(len(part.x), dtype=torch.int64, device=part.x.device)
        first = first.scatter_reduce_(0, part.windows[:, 0], part.rows, "amin", include_self=False)
        return augment.mask(part.x, noise[first])

    def _shape(self, steps: int) -> tuple[int, int]:
        return steps, MEL_BANDS

    def _fill(self, video: StoredVideo, first: int, out: np.ndarray) -> None:
        fill_audio(video, first, out)


class Waveform(Sound):
    """Samples at 16 kHz: chunks int16 [g, 1, 1, w], for encoders with a front end of their own.

    They stay integers, since floats become bfloat16 on their way to a network, which is too coarse for sound.
    """

    _dtype = torch.int16

    def on_device(self, part: Part, augment: Augment | None, noise: Tensor | None) -> Tensor:
        return part.x

    def _shape(self, steps: int) -> tuple[int, int]:
        return 1, steps * self._cut.window.hop

    def _fill(self, video: StoredVideo, first: int, out: np.ndarray) -> None:
        assert video.waveform is not None
        begin = first * self._cut.window.hop
        start, stop = max(begin, 0), min(begin + out.shape[1], len(video.waveform))
        if start < stop:
            out[0, start - begin : stop - begin] = video.waveform[start:stop]


def fill_audio(video: StoredVideo, first: int, out: np.ndarray) -> None:
    """Fills `out`, float32 [t, m] of zeros, with audio from step `first` on, each band standardised by its recording.

    Beyond the recording's ends it stays 0, the recording's mean.
    """
    assert video.audio is not None
    assert video.audio_mean is not None
    assert video.audio_std is not None
    start, stop = max(first, 0), min(first + len(out), len(video.audio))
    if start < stop:
        standard = (video.audio[start:stop] - video.audio_mean) / np.maximum(video.audio_std, _LEAST_STD)
        out[start - first : stop - first] = standard
