"""Speech networks of torchaudio: wav2vec 2.0, HuBERT and WavLM.

Shapes: B samples, G chunks of n samples of sound, T hidden states of D features, one each 20 ms.
"""

import torchaudio
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torchaudio.models import wav2vec2_model, wavlm_model
from torchaudio.pipelines import Wav2Vec2Bundle

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.models.encoders.sound import SoundEncoder, rows_from
from abaw_expr.models.encoders.weights import download
from abaw_expr.settings import known_entry

_STATE = 320
"""Samples from one hidden state to the next."""
WINDOW = AudioWindow(steps=50, stride=1, context=50, hop=_STATE)
"""1 s around the frame (D), with 1 s more on both sides where neighbours share a pass."""


class TorchaudioEncoder(SoundEncoder):
    """A self-supervised speech network: sound [B, 1, 1, n] to the mean of its last hidden states, [B, D, 1, 1]."""

    input_shape = (1, 1, WINDOW.steps * _STATE)
    window = WINDOW

    def __init__(self, name: str) -> None:
        super().__init__()
        self.bundle = known_entry(_bundles(), name, "torchaudio's network")
        self.name = name
        build = wavlm_model if self.bundle._model_type == "WavLM" else wav2vec2_model
        self.network = build(**self.bundle._params)
        self.width = self.bundle._params["encoder_embed_dim"]
        self.front_end = {"rate": SAMPLE_RATE, "normalised": self.bundle._normalize_waveform}

    def forward(self, x: Tensor) -> Tensor:
        return self.states(self.samples(x)).mean(1)[..., None, None]

    def states(self, samples: Tensor) -> Tensor:
        """The last hidden states [G, T, D] of samples [G, n]."""
        if not len(samples):
            return samples.new_zeros(0, 1, self.width)
        if self.bundle._normalize_waveform:
            samples = layer_norm(samples, samples.shape[1:])
        found: Tensor = self.network.extract_features(samples)[0][-1]
        return found

    def of_windows(self, samples: Tensor, chunk: Tensor, step: Tensor) -> Tensor:
        return rows_from(self.states(samples), chunk, step, WINDOW.steps).mean(1)

    def download(self) -> None:
        found = download(self.bundle.get_model, f"torchaudio:{self.name}")
        network = getattr(found, "model", found)  # one that normalises is wrapped
        self.network.load_state_dict(network.state_dict())

    def stages(self) -> list[nn.Module]:
        """The feature extractor, and each layer of the transformer."""
        transformer = self.network.encoder.transformer
        first = [self.network.feature_extractor, self.network.encoder.feature_projection]
        return [nn.ModuleList(first), *transformer.layers]


def _bundles() -> dict[str, Wav2Vec2Bundle]:
    """The bundles of speech networks by name."""
    found = ((name, getattr(torchaudio.pipelines, name)) for name in dir(torchaudio.pipelines) if name.isupper())
    return {name: bundle for name, bundle in found if isinstance(bundle, Wav2Vec2Bundle)}
