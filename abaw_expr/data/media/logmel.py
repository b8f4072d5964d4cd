"""The log-mel spectrogram that the sound branch sees (models.md's sizes; one home for them).

Shapes: n samples, t steps of time, f mel bands.
"""

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE

MEL_BANDS = 64
"""Mel bands in the sound branch's input (models' default)."""
FFT = 1024
HOP = 256
LOWEST, HIGHEST = 60.0, 7600.0
FLOOR = 1e-6
STEP = HOP / SAMPLE_RATE
"""Seconds between steps: 16 ms."""
_CHUNK = 4096
"""Steps transformed at a time, so that memory stays flat over an hour of sound."""


def log_mel(samples_n: np.ndarray) -> np.ndarray:
    """log(mel + 1e-6), float16 [t, f] with t = 1 + n // HOP; step j is centred on j x 16 ms.

    Sound outside the recording counts as silence.
    """
    import torch  # here, since what only reads stores does without
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(SAMPLE_RATE, FFT, FFT, HOP, LOWEST, HIGHEST, n_mels=MEL_BANDS, center=False)
    steps = 1 + len(samples_n) // HOP
    padded_n = torch.nn.functional.pad(torch.from_numpy(samples_n), (FFT // 2, FFT // 2 + HOP))
    pieces = []
    for start in range(0, steps, _CHUNK):
        stop = min(start + _CHUNK, steps)
        mel_ft = transform(padded_n[start * HOP : (stop - 1) * HOP + FFT])
        pieces.append(torch.log(mel_ft + FLOOR).T.half().numpy())
    return np.concatenate(pieces)


def step_at(time: float | np.ndarray) -> np.ndarray:
    """The step centred nearest to each time in seconds, int64."""
    return np.rint(np.asarray(time) / STEP).astype(np.int64)
