"""A video of one's own to an answer: how many faces are found, and how fast the whole way is.

    python -m tests.benchmarks.infer [--corpus FOLDER] [--run RUN] [--clips 3] [--keep FOLDER]

Films clips of 20 s, 640 x 360, 25 frames a second, with one face of 120 to 200 pixels that moves about, out of the
picture for a second, and a voice. A corpus is a folder with faces.npz (images [n, 48, 48] uint8) and voices/*.flac: a
new face of it every two seconds. Without one faces are drawn and voices computed. Each clip then goes through
`abaw-expr infer` in a process of its own, timed from start to end: decoding, detection in every fifth frame, alignment,
crops, sound, both networks at the default interval, table and picture. Without a run the networks are untrained, which
takes them as long. Exit status 1 when short.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from abaw_expr.commands import console
from abaw_expr.data.media.decode import SAMPLE_RATE, read_audio
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.data.synthetic.drawing import draw_video, wander
from abaw_expr.data.synthetic.speech import synthesise_speech
from abaw_expr.faces.choose import people_of
from abaw_expr.faces.extract import Faces, extract_faces
from abaw_expr.settings_file import load_settings, recipe
from tests.benchmarks.common import judge, print_facts
from tests.training.test_predict import make_run

SECONDS, RATE, SIZE = 20, Fraction(25), (640, 360)
FRAMES = int(SECONDS * RATE)
AWAY = range(250, 275)
"""Frames, from 0, without a face."""
HOLD = 50
"""Frames that a face of the corpus stays for."""
FOUND_SHARE, FACTOR = 0.95, 1.0
"""What is required: of the frames that show a face, and of real time."""


def drawn(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """A drawn person's frames and a computed voice."""
    classes = rng.integers(0, 8, SECONDS // 2).tolist()
    faces = list(draw_video(classes, np.arange(FRAMES) // 50, float(RATE), rng).frames)
    return faces, synthesise_speech(classes, [2.0] * len(classes), rng).audio


def real(corpus: Path, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Faces of a corpus, one after the other, and voices of it."""
    images = np.load(corpus / "faces.npz")["images"]
    chosen = images[rng.choice(len(images), FRAMES // HOLD, replace=False)]
    faces = [np.repeat(chosen[i // HOLD][..., None], 3, axis=2) for i in range(FRAMES)]
    voices = sorted((corpus / "voices").glob("*.flac"))
    sounds = [read_audio(voices[i]) for i in rng.choice(len(voices), 8)]
    heard = np.concatenate([audio.samples for audio in sounds if audio is not None])[: SECONDS * SAMPLE_RATE]
    return faces, (heard * 32_767).astype(np.int16)


def pictures(faces: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[list[np.ndarray], Iterator[np.ndarray]]:
    """Where the face is, [left, top, side] by frame, and the pictures."""
    stones = rng.integers(60, 140, (9, 16, 3), dtype=np.uint8)
    wall = Image.fromarray(stones).resize(SIZE, Image.Resampling.BICUBIC)
    moves = 0.5 + 0.5 * np.tanh(wander(FRAMES, 3, 2 * float(RATE), rng))  # a knot every two seconds
    sides = np.round(120 + 80 * moves[:, 2])
    room = np.array(SIZE) - sides[:, None]
    places = np.round(np.column_stack([moves[:, :2] * room, sides])).astype(int)

    def shown() -> Iterator[np.ndarray]:
        for i, (left, top, side) in enumerate(places.tolist()):
            picture = wall.copy()
            if i not in AWAY:
                face = Image.fromarray(faces[i]).resize((side, side), Image.Resampling.BICUBIC)
                picture.paste(face, (left, top))
            yield np.asarray(picture)

    return list(places), shown()


def found_in(out: Path, video: Path, places: Sequence[np.ndarray]) -> tuple[int, int]:
    """Frames whose crop is of the face that is there, and crops of frames without one."""
    faces = extract_faces({video.stem: video}, out)[video.stem]
    assert isinstance(faces, Faces)
    right: set[int] = set()
    wrong: set[int] = set()
    for at in people_of(faces.tracks, faces.choices).values():
        for frame, place in at.items():
            left, top, side = places[frame - 1]
            offset = (place[:2] + place[2:4]) / 2 - (left, top)
            good = frame - 1 not in AWAY and bool(np.all((offset > 0) & (offset < side)))
            (right if good else wrong).add(frame)
    return len(right), len(wrong)


def run_clip(number: int, corpus: Path | None, run: Path, folder: Path) -> tuple[str, float, int, float, float, float]:
    """Films a clip and infers it: name, share of faces found, crops without a face, seconds, of a core, real time."""
    rng = np.random.default_rng(number)
    faces, voice = drawn(rng) if corpus is None else real(corpus, rng)
    video, out = folder / f"clip-{number}.mp4", folder / f"answer-{number}"
    places, shown = pictures(faces, rng)
    write_video(video, RATE, shown, voice)
    began, worked = time.perf_counter(), _worked()
    command = [sys.executable, "-m", "abaw_expr", "infer", video, "--run", run, "--out", out, "--accelerator", "cpu"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    seconds, worked = time.perf_counter() - began, _worked() - worked
    right, wrong = found_in(out, video, places)
    return video.stem, right / (FRAMES - len(AWAY)), wrong, seconds, worked, SECONDS / seconds


def _worked() -> float:
    """Seconds that the processes started so far kept a core busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(corpus: Path | None = None, run: Path | None = None, clips: int = 3, keep: Path | None = None) -> int:
    """Films, infers, prints, judges.

    Args:
        corpus: Folder with faces.npz and voices/*.flac; drawn faces and computed voices without it.
        run: A trained run; untrained networks of the recipe `modern` without it.
        clips: How many clips.
        keep: Keep clips and answers in this folder.
    """
    print_facts()
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trained = run or make_run(Path(temporary) / "run", load_settings(recipe("modern"))).root
        rows = [run_clip(number, corpus, trained, folder) for number in range(clips)]
    columns = ("clip", "faces found", "crops of nothing", "seconds", "of a core", "times real time")
    title = (
        f"{SECONDS} s of {SIZE[0]} x {SIZE[1]} at {RATE} frames a second, {'drawn' if corpus is None else 'real'} faces"
    )
    console.table(title, columns, rows)
    found, factor = (float(np.mean([row[i] for row in rows])) for i in (1, 5))
    return judge(
        (found >= FOUND_SHARE, f"faces found in {found:.1%} of the frames that show one, {FOUND_SHARE:.0%} required"),
        (factor >= FACTOR, f"{factor:.2f} times real time, {FACTOR:g} required"),
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
