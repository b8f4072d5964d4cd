"""Log-mel spectrograms, the input of the audio branch, and their sizes.

Shapes: n samples, t steps of time, f mel bands.
"""

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE

MEL_BANDS = 64
"""Mel bands of the audio branch's input."""
_FFT = 1024
HOP = 256
_LOWEST, _HIGHEST = 60.0, 7600.0
_FLOOR = 1e-6
STEP = HOP / SAMPLE_RATE
"""Seconds between steps: 16 ms."""
_CHUNK = 4096
"""Steps transformed at a time, so that memory does not grow with an hour of audio."""


def log_mel(samples_n: np.ndarray) -> np.ndarray:
    """log(mel + 1e-6), float16 [t, f] with t = 1 + n // HOP, of samples float32 [n]; step j is centred on j x 16 ms.

    Audio outside the recording counts as silence.
    """
    import torch  # imported here, since reading a store needs no torch
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(SAMPLE_RATE, _FFT, _FFT, HOP, _LOWEST, _HIGHEST, n_mels=MEL_BANDS, center=False)
    steps = 1 + len(samples_n) // HOP
    padded_n = torch.nn.functional.pad(torch.from_numpy(samples_n), (_FFT // 2, _FFT // 2 + HOP))
    pieces = []
    for start in range(0, steps, _CHUNK):
        stop = min(start + _CHUNK, steps)
        mel_ft = transform(padded_n[start * HOP : (stop - 1) * HOP + _FFT])
        pieces.append(torch.log(mel_ft + _FLOOR).T.half().numpy())
    return np.concatenate(pieces)


def step_at(time: float | np.ndarray) -> np.ndarray:
    """The step centred nearest to each time in seconds, int64 [...] for times [...]."""
    return np.rint(np.asarray(time) / STEP).astype(np.int64)
