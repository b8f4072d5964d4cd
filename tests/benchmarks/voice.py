"""Does the voice activity of a store agree with what is known of real recordings?

    python -m tests.benchmarks.voice UTTERANCES [--most 64]

UTTERANCES is a folder of recorded utterances, audio files of one voice each in a quiet room, at any depth. They are
joined with gaps of 0.35 s of digital silence, put into MP4 files as AAC and prepared. A step of 32 ms is speech where
its middle lies between the first and the last moment of an utterance that is within 30 dB of the utterance's loudest 50
ms; before, behind and in the gaps it is a pause. Required: 90 % of the steps agree. White noise and a tone of 440 Hz
must be voice in fewer than 5 % of theirs, as they are measured and through a file. Exit status 1 when short.
"""

import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import tyro

from abaw_expr.commands import console
from abaw_expr.data.media.decode import SAMPLE_RATE, read_audio
from abaw_expr.data.media.voice import VOICE_SAMPLES, VOICED
from abaw_expr.data.store.store import RECORDINGS, VOICE_FILE
from abaw_expr.data.synthetic.corpus import write_video
from tests.benchmarks.common import judge, print_facts
from tests.helpers.tiny import ANNOTATIONS, add_validation, annotate, run

LEAST_AGREED, MOST_VOICE = 0.9, 0.05
GAP = int(0.35 * SAMPLE_RATE)
PER_FILM = 16
"""Utterances in a film."""
LOUD = 10**-1.5
"""Amplitude 30 dB below another."""
RATE = Fraction(10)


def spoken(samples: np.ndarray) -> np.ndarray:
    """Between which samples an utterance lies, bool [n], of its samples [n]."""
    level = np.sqrt(np.convolve(samples.astype(np.float64) ** 2, np.full(800, 1 / 800), "same").clip(0))
    loud = np.flatnonzero(level > LOUD * level.max())
    said = np.zeros(len(samples), bool)
    said[loud[0] : loud[-1] + 1] = True
    return said


def compose(utterances: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Samples [n] of utterances and gaps, and where speech is, bool [n]."""
    gap = np.zeros(GAP, np.float32)
    sound = [piece for samples in utterances for piece in (samples, gap)]
    said = [piece for samples in utterances for piece in (spoken(samples), gap.astype(bool))]
    return np.concatenate(sound), np.concatenate(said)


def heard(root: Path, sounds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The probabilities of a voice that the store of a release of these sounds has, by name."""
    for name, samples in sounds.items():
        frames = int(len(samples) / SAMPLE_RATE * RATE) + 1
        images = (np.full((64, 64, 3), 128, np.uint8) for _ in range(frames))
        write_video(root / f"release/batch1/{name}.mp4", RATE, images, (samples * 32767).astype(np.int16))
        annotate(root / "release", name, [0] * frames, f"{ANNOTATIONS}/Train_Set")
    add_validation(root / "release")
    run(root / "release", root / "store")
    return {name: np.load(root / "store" / RECORDINGS / name / VOICE_FILE) for name in sounds}


def benchmark(utterances: tyro.conf.Positional[Path], most: int = 64) -> int:
    """Prints the agreement and the verdict, and returns the exit status.

    Args:
        utterances: A folder of audio files.
        most: Utterances that are drawn from it.
    """
    rng = np.random.default_rng(0)
    files = sorted(path for path in utterances.rglob("*") if path.suffix in (".flac", ".wav", ".mp3"))
    audio = [read_audio(path) for path in rng.permutation(np.array(files, object))[:most]]
    voices = [one.samples for one in audio if one is not None]
    films = {f"film{i}": compose(voices[i : i + PER_FILM]) for i in range(0, len(voices), PER_FILM)}
    clock = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    others = {"noise": rng.normal(0, 0.2, len(clock)).clip(-1, 1), "tone": 0.3 * np.sin(2 * np.pi * 440 * clock)}
    with tempfile.TemporaryDirectory() as made:
        found = heard(Path(made), {name: sound for name, (sound, _) in films.items()} | others)
    counts = np.zeros((2, 2), int)
    for name, (_, said) in films.items():
        middles = np.arange(len(found[name])) * VOICE_SAMPLES + VOICE_SAMPLES // 2
        inside = middles < len(said)
        np.add.at(counts, (said[middles[inside]].astype(int), (found[name] >= VOICED)[inside].astype(int)), 1)
    print_facts()
    rows = [(name, *row.tolist()) for name, row in zip(("pause", "speech"), counts, strict=True)]
    console.table(f"Steps of 32 ms, {len(voices)} utterances", ("known as", "heard as pause", "as voice"), rows)
    agreed = np.trace(counts) / counts.sum()
    voiced = {name: float(np.mean(found[name] >= VOICED)) for name in others}
    return judge(
        (bool(agreed >= LEAST_AGREED), f"{agreed:.1%} of the steps agree, required {LEAST_AGREED:.0%}"),
        *(
            (share < MOST_VOICE, f"{share:.1%} of the {name} is voice, less than {MOST_VOICE:.0%}")
            for name, share in voiced.items()
        ),
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
