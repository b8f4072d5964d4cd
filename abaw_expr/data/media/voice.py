"""The probability of a voice along a recording's audio, by the network of Silero VAD.

Shapes: n samples, v steps of 32 ms.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE

VOICE_SAMPLES = 512
"""Samples per step. The network is trained for this number at 16 kHz, and for the 64 samples before."""
_CONTEXT = 64
VOICE_STEP = VOICE_SAMPLES / SAMPLE_RATE
"""Seconds from one step to the next: 32 ms."""
VOICED = 0.5
"""The probability from which a step counts as voice."""
_STATE = (1, 1, 128)
"""Shape of each of the two states that the network carries from one step to the next."""
_BLOCK = 4096
"""Steps at a time, so that memory does not grow with an hour of audio."""
_DIGITS = 3
"""Decimals of a probability: processors differ beyond them."""


def voice_probabilities(samples_n: np.ndarray) -> np.ndarray:
    """The probability of a voice, float16 [v], v = ceil(n / 512), of mono audio at 16 kHz, float32 [n].

    Step j is of the samples 512 j to 512 j + 511; after the end there is silence.
    """
    network = _network()
    steps = -(-len(samples_n) // VOICE_SAMPLES)
    padded = np.pad(samples_n.astype(np.float32), (_CONTEXT, steps * VOICE_SAMPLES - len(samples_n)))
    hidden, cell = np.zeros(_STATE, np.float32), np.zeros(_STATE, np.float32)
    found = np.empty(steps, np.float16)
    for start in range(0, steps, _BLOCK):
        stop = min(start + _BLOCK, steps)
        block = padded[start * VOICE_SAMPLES : stop * VOICE_SAMPLES + _CONTEXT]
        pieces = np.lib.stride_tricks.sliding_window_view(block, _CONTEXT + VOICE_SAMPLES)[::VOICE_SAMPLES]
        inputs = {"input": np.ascontiguousarray(pieces), "h": hidden, "c": cell}
        probabilities, hidden, cell = network.run(["speech_probs", "hn", "cn"], inputs)
        found[start:stop] = probabilities.reshape(-1).round(_DIGITS)
    return found


@cache
def _network() -> Any:
    """The network, on one thread. The package that carries it is not imported: it would set the threads of torch."""
    import onnxruntime  # imported here, since reading a store needs none of it

    spec = find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
