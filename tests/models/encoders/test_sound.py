"""Encoders with a front end of their own for sound: golden values, windows of chunks, and official files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks
from torchaudio.transforms import MelSpectrogram

from abaw_expr.data.batches.audio_chunks import AudioWindow, segments
from abaw_expr.models.encoders import ge2e, torchaudio_encoder, vggish
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.front_ends import SpeakerFrontEnd, VGGishFrontEnd
from abaw_expr.models.encoders.ge2e import GE2E
from abaw_expr.models.encoders.sound import SoundEncoder
from abaw_expr.models.encoders.vggish import VGGish
from abaw_expr.models.encoders.weights import key_map, read_tensors
from tests.helpers.golden_modules import cases_of, summary
from tests.helpers.networks import parameters
from tests.helpers.paths import GOLDEN
from tests.models.test_golden import compare

LOG_MEL = json.loads((GOLDEN / "vggish.json").read_text())["log_mel"]


def wave() -> Tensor:
    """The sound of the golden log-mel, float64 [24000]: a tone, and one that rises."""
    n = torch.arange(24_000, dtype=torch.float64)
    tone, rising = 2 * torch.pi * 440 * n / 16_000, 2 * torch.pi * (300 + 0.05 * n) * n / 16_000
    return 0.5 * torch.sin(tone) + 0.25 * torch.sin(rising)


def test_the_log_mel_of_vggish_is_the_public_one() -> None:
    front_end = VGGishFrontEnd()
    rows = front_end(wave())
    found = summary(rows, LOG_MEL["output"]["stride"])
    assert found.pop("sum") == pytest.approx(LOG_MEL["output"]["sum"], rel=1e-11)  # of 9,472 numbers
    compare(found, {key: value for key, value in LOG_MEL["output"].items() if key != "sum"})
    compare(summary(front_end.mel, LOG_MEL["mel_matrix"]["stride"]), LOG_MEL["mel_matrix"])
    for number in (0, 50):
        assert rows[number, :8].tolist() == pytest.approx(LOG_MEL[f"row{number}_first8"], rel=0, abs=1e-9)


def test_windows_of_vggish_begin_at_the_time_of_the_frame() -> None:
    gold = LOG_MEL["frame_windows_29.97fps"]
    starts = vggish.WINDOW.start(np.arange(gold["count"]) / 29.97)
    assert starts.tolist() == gold["starts"]


def test_the_mel_of_ge2e_is_torchaudios_with_slaneys_scale() -> None:
    own = SpeakerFrontEnd()
    slaney = {"mel_scale": "slaney", "norm": "slaney", "pad_mode": "constant"}
    transform = MelSpectrogram(16_000, 400, 400, 160, 0, 8_000, n_mels=40, **slaney)
    samples = wave().float()
    torch.testing.assert_close(own(samples), transform(samples).T, rtol=1e-4, atol=1e-6)
    assert own.mel.equal(melscale_fbanks(201, 0.0, 8000.0, 40, 16_000, "slaney", "slaney"))


def ge2e_encoder() -> Encoder:
    return GE2E()


def speech_network() -> Encoder:
    """A small one, of torchaudio's kind."""
    encoder = torchaudio_encoder.TorchaudioEncoder("WAV2VEC2_BASE")
    encoder.network.encoder.transformer.layers = encoder.network.encoder.transformer.layers[:1]
    return encoder


@pytest.mark.parametrize(
    ("build", "window", "exact"),
    [
        (ge2e_encoder, ge2e.WINDOW, True),
        (VGGish, vggish.WINDOW, True),
        (speech_network, torchaudio_encoder.WINDOW, False),
    ],
)
def test_a_window_in_a_chunk_has_the_features_of_that_window(
    build: Callable[[], Encoder], window: AudioWindow, exact: bool
) -> None:
    """Of one that sees context, what differs is the context: it is the same in every chunk that has it."""
    torch.manual_seed(0)
    encoder = build().eval()
    samples = 0.1 * torch.randn(24 * 16_000)
    time = np.array([0.0, 0.3, 17.2, 22.0])
    start = window.start(time)
    cut = segments(window)(np.zeros(len(time), np.int64), start)
    length = cut.steps * window.hop
    padded = torch.nn.functional.pad(samples, (length, length))
    pieces = [padded[length + first * window.hop :][:length] for first in cut.first.tolist()]
    chunks = torch.stack(pieces)[:, None, None]
    windows = torch.from_numpy(np.stack([cut.chunk, start - cut.first[cut.chunk]], axis=1))
    with torch.inference_mode():
        found = encoder.features(chunks, windows)
        alone = torch.cat([encoder.features(chunks, windows[rows]) for rows in (slice(0, 1), slice(1, None))])
    assert found.shape == (len(time), 1, encoder.width)
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)
    assert found.std(0).max() > 0
    if not exact:
        return
    margin = 0 if window.context == 0 else window.context * window.hop
    for row, first in enumerate(start.tolist()):
        begin = length + first * window.hop
        own = padded[begin - margin :][: window.steps * window.hop + 2 * margin][None, None, None]
        with torch.inference_mode():
            expected = encoder.features(own, torch.tensor([[0, margin // window.hop]]))
        torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("build", [ge2e_encoder, VGGish])
def test_sound_is_seen_in_full_precision_under_autocast(build: Callable[[], Encoder]) -> None:
    """Integers reach the front end as they are, where floats would be bfloat16; the network behind it is."""
    encoder = build().eval()
    assert isinstance(encoder, SoundEncoder)
    whole = (2**15 * wave().float()).round().to(torch.int16)[None, None, None]
    with torch.inference_mode():
        expected = encoder.mel(encoder.samples(whole))  # type: ignore[operator]
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder.mel(encoder.samples(whole))  # type: ignore[operator]
            assert encoder.features(whole[None].expand(1, -1, -1, -1, -1)).isfinite().all()
    assert found.dtype == torch.float32
    assert found.equal(expected)
    torch.testing.assert_close(encoder.samples(whole)[0], wave().float(), rtol=0, atol=1 / 2**15)


def test_a_quiet_voice_has_the_embedding_of_a_louder_one_and_silence_stays() -> None:
    torch.manual_seed(0)
    encoder = GE2E().eval()
    speech = torch.randn(1, 1, 1, 1, 25_600)
    level = speech / speech.square().mean().sqrt() * 0.0316  # -30 dB
    with torch.inference_mode():
        found = {gain: encoder.features(level * gain) for gain in (1.0, 0.1, 1e-4)}
        silent = encoder.features(0 * level)
    torch.testing.assert_close(found[0.1], found[1.0], rtol=1e-3, atol=1e-5)
    assert (found[1e-4] - silent).abs().max() < 1e-2
    assert silent.isfinite().all()


def test_official_files_of_sound_networks_are_weights(tmp_path: Path) -> None:
    """VGGish as torchvggish saves it; GE2E as its package does, with two numbers of its loss."""
    torch.manual_seed(0)
    for lent, names, more in (
        (VGGish(), key_map("vggish"), {}),
        (GE2E(), key_map("ge2e"), {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}),
    ):
        state = {names.official(key): tensor for key, tensor in lent.state_dict().items()}
        torch.save({"step": 3, "model_state": state | more}, tmp_path / "w.pth")
        encoder = type(lent)()
        encoder.load(read_tensors(tmp_path / "w.pth"), tmp_path / "w.pth")
        assert all(tensor.equal(lent.state_dict()[key]) for key, tensor in encoder.state_dict().items())
    official = {line.split()[0] for line in cases_of("vggish")["no_final_relu"]["tensors"]}
    assert official == {key_map("vggish").official(key) for key in VGGish().state_dict()}


def test_every_parameter_of_vggish_gets_a_gradient() -> None:
    torch.manual_seed(0)
    encoder = VGGish()
    assert parameters(encoder) == 72_141_184
    encoder.features(torch.randn(1, 1, *encoder.input_shape)).square().sum().backward()
    assert all(bool(p.grad is not None and p.grad.abs().sum() > 0) for p in encoder.parameters())
