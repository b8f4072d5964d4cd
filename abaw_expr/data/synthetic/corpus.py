"""A synthetic corpus in the layout of the organisers' 6th release, for the demonstration and the tests.

Its faces are drawn (`drawing`) and its speech is synthesised (`speech`); these modules say how classes look and sound,
and how hard they are. Two classes can be told apart by the face only and two by the voice only, so that fusing both
branches must beat either; the same holds for valence and arousal, and for the action units (`annotation`). It has the
real release's irregularities: odd frame rates, label lines that differ from the frame count, stretches without
annotation or with some action units only, frames without a crop, two roots of crops, two faces in one recording, a
recording without audio and one whose audio ends early, lists with a byte-order mark and CRLF.

Shapes: T frames of a video, L label lines, n samples of audio.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.synthetic.annotation import (
    action_units,
    label_lines,
    unannotated,
    unannotated_units,
    valence_arousal,
)
from abaw_expr.data.synthetic.drawing import draw_video, smooth
from abaw_expr.data.synthetic.speech import MANNERS, synthesise_speech
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import ReleaseError
from abaw_expr.files import atomic
from abaw_expr.tasks.names import crop_name, frame_name
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task

_DECK = (0, 0, 1, 2, 3, 4, 5, 6, 7, 7)
"""Classes are dealt from this deck, shuffled again when it is empty: each occurs, Neutral and Other more often."""
_SEGMENT_SECONDS = (1.5, 4.0)
"""The shortest and the longest stretch of one class."""
_MISSING_CROPS = 0.02
"""The fraction of frames without a crop, one frame at least per video."""
_EARLY_END = 0.8
"""The audio's length as a fraction of the video's, in the recording whose audio ends early."""

# Irregularities go by a recording's number, so that small plans have them too.
RATES = tuple(map(Fraction, ("10", "15/2", "30000/1001", "309/20", "25/2", "15/2", "10", "24000/1001", "10", "25/2")))
"""Frames a second."""
_MOST_RATE = 12.5
"""Recordings at a higher rate get as many frames as at this one, and are shorter, so that they cost no more."""
EXTRA_LINES = (1, 0, 1, -1, 1, 0, 1, 2)
"""Label lines minus frames."""

_CELL = (128, 160)
"""Height and width of one face's part of the frame, pixels."""
_SPLITS = ("train", "val", "test")
_TEST_SET = "names_of_videos_in_each_test_set"
TEST_LISTS = {
    EXPR.name: f"{_TEST_SET}/Expression_Recognition_Challenge_test_set_release.txt",
    VA.name: f"{_TEST_SET}/Valence_Arousal_Estimation_Challenge_test_set_release.txt",
    AU.name: f"{_TEST_SET}/Action_Unit_Detection_Challenge_test_set_release.txt",
}
"""The list of test videos by the task's name."""
TEMPLATES = {
    EXPR.name: "prediction_files_format/CVPR_6th_ABAW_Expr_test_set_sample.txt",
    VA.name: "prediction_files_format/CVPR_6th_ABAW_VA_test_set_sample.txt",
    AU.name: "prediction_files_format/CVPR_6th_ABAW_AU_test_set_sample.txt",
}
"""The template by the task's name."""


@dataclass(frozen=True)
class CorpusPlan:
    """The size of the corpus. Each recording has its own people, so validation and test show unseen ones."""

    train_videos: int = 12
    """Training recordings; the second has two faces, so two label files."""
    val_videos: int = 5
    """Validation recordings."""
    test_videos: int = 3
    """Test recordings; the last has no audio."""
    seconds: float = 35.0
    """Length of a recording; those at a high frame rate are shorter."""


@dataclass(frozen=True)
class _Recording:
    number: int
    split: str
    rate: Fraction
    frames: int
    people: tuple[str, ...]
    """Suffixes of the faces' names, the speaker first."""
    audio_fraction: float
    """The fraction of its length that has audio."""

    @property
    def name(self) -> str:
        return f"{self.number + 1}-{float(self.rate):.0f}-{_CELL[1] * len(self.people)}x{_CELL[0]}"

    @property
    def extra_lines(self) -> int:
        return EXTRA_LINES[self.number % len(EXTRA_LINES)]


@dataclass(frozen=True)
class _Person:
    """What is annotated of one person of a recording."""

    video: str
    classes: np.ndarray
    """The class of each segment."""
    segment: np.ndarray
    """The segment of each frame, [T]."""
    looks: np.ndarray
    """The look in each frame, [T, 7]."""
    unannotated: np.ndarray
    """Which frames are not annotated, bool [T]."""


def label_folder(task: Task, split: str) -> str:
    """The folder of a split's label files; those of the test split have a name that no reader takes for annotations."""
    if split == "test":
        return "hidden_test_labels" if task == EXPR else f"hidden_test_labels_{task.name}"
    return f"6th_ABAW_Annotations/{task.annotation_folders[-1]}/{'Train_Set' if split == 'train' else 'Validation_Set'}"


def write_release(root: Path, plan: CorpusPlan, seed: int, on_progress: OnProgress | None = None) -> None:
    """Writes the corpus to `root`, whole or not at all; the same plan and seed give the same bytes.

    `on_progress(recordings done, recordings in all)` is called after each. Raises ReleaseError where `root` exists and
    is not an empty folder.
    """
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise ReleaseError("exists already", path=root, expected="an empty or a new folder", remedy="Name another.")
    recordings = _recordings(plan)
    decks = {split: _shuffled_decks(np.random.default_rng([seed, 0, i])) for i, split in enumerate(_SPLITS)}
    rows: dict[str, int] = {}
    with atomic(root) as folder:
        for done, recording in enumerate(recordings, start=1):
            lines = _write_recording(folder, recording, decks[recording.split], seed)
            if recording.split == "test":
                rows |= lines
            if on_progress:
                on_progress(done, len(recordings))
        _write_test_set(folder, rows)


def write_video(path: Path, rate: Fraction, frames: Iterable[np.ndarray], audio: np.ndarray | None) -> None:
    """Writes one MP4 (H.264, AAC) with `rate` frames a second exactly.

    `frames` are uint8 [height, width, 3] of one even size; `audio` is int16 [n], 16 kHz mono, or None for a video
    without an audio stream. One thread and bit-exact headers: the same input gives the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as out:
        video = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "28"})
        video.codec_context.thread_count = 1
        audio_stream = None if audio is None else out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        if audio_stream is not None:
            audio_stream.bit_rate = 64_000
        for number, pixels in enumerate(frames):
            if number == 0:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio_stream is not None and audio is not None:
            samples = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            out.mux(audio_stream.encode(samples))
            out.mux(audio_stream.encode())


def _recordings(plan: CorpusPlan) -> list[_Recording]:
    """Every recording of a plan, numbered through the splits."""
    splits = ["train"] * plan.train_videos + ["val"] * plan.val_videos + ["test"] * plan.test_videos
    last_test = len(splits) - 1 if plan.test_videos else None
    recordings = []
    for number, split in enumerate(splits):
        rate = RATES[number % len(RATES)]
        frames = round(plan.seconds * min(float(rate), _MOST_RATE))
        people = ("_left", "_right") if (number, split) == (1, "train") else ("",)
        audio_fraction = {0: _EARLY_END, last_test: 0.0}.get(number, 1.0)
        recordings.append(_Recording(number, split, rate, frames, people, audio_fraction))
    return recordings


def _shuffled_decks(rng: np.random.Generator) -> Iterator[int]:
    """Classes without end, deck after deck."""
    while True:
        yield from rng.permutation(_DECK).tolist()


def _write_recording(folder: Path, recording: _Recording, deck: Iterator[int], seed: int) -> dict[str, int]:
    """Writes a recording's video, crops and labels; returns the number of label lines of each of its people."""
    number, rate = recording.number, float(recording.rate)
    rng, annotators = (np.random.default_rng([seed, purpose, number]) for purpose in (1, 2))
    times = np.arange(recording.frames) / rate
    segments = [_segments(deck, recording.frames / rate, rng) for _ in recording.people]
    faces, people = [], []
    for suffix, (classes, seconds) in zip(recording.people, segments, strict=True):
        segment = np.searchsorted(np.cumsum(seconds)[:-1], times, side="right")
        drawn = draw_video(classes, segment, rate, rng)
        crops = _with_gaps(list(drawn.frames), rng)
        video = recording.name + suffix
        people.append(_Person(video, np.array(classes), segment, drawn.looks, unannotated(len(times), rng)))
        faces.append(crops)
        _write_crops(folder / ("cropped_aligned_new_50_vids" if number % 4 == 3 else "cropped_aligned") / video, crops)
    speech = synthesise_speech(*segments[0], rng) if recording.audio_fraction else None
    kept = None if speech is None else speech.audio[: int(len(speech.audio) * recording.audio_fraction)]
    path = folder / "videos" / ("batch2" if number % 3 == 2 else "batch1") / f"{recording.name}.mp4"
    write_video(path, recording.rate, _frames(faces, rng), kept)
    # people who are not heard are annotated as if they sounded like the mean speaker
    heard = [MANNERS[person.classes] for person in people]
    if speech is not None:
        heard[0] = speech.manners
    for person, manners in zip(people, heard, strict=True):
        _write_annotations(folder, recording, person, smooth(manners[person.segment], rate), annotators)
    return {person.video: len(times) + recording.extra_lines for person in people}


def _write_annotations(
    folder: Path, recording: _Recording, person: _Person, manners: np.ndarray, rng: np.random.Generator
) -> None:
    """Writes a person's label file of each task; `manners` [T, 6] is what is heard during each frame."""
    partly = unannotated_units(person.unannotated, rng) if recording.number % 2 else person.unannotated
    for task, values, hidden in (
        (EXPR, person.classes[person.segment], person.unannotated),
        (VA, valence_arousal(person.looks, manners), person.unannotated),
        (AU, action_units(person.looks, manners), partly),
    ):
        lines = label_lines(values, hidden, task, recording.extra_lines)
        path = folder / label_folder(task, recording.split) / f"{person.video}.txt"
        _write_labels(path, task, lines, last_newline=recording.number % 2 == 0)


def _segments(deck: Iterator[int], seconds: float, rng: np.random.Generator) -> tuple[list[int], list[float]]:
    """The classes of a recording's segments, and their lengths, which sum to `seconds`."""
    classes, lengths, left = [], [], seconds
    while left > 0:
        classes.append(next(deck))
        lengths.append(min(rng.uniform(*_SEGMENT_SECONDS), left))
        left -= lengths[-1]
    return classes, lengths


def _with_gaps(crops: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray | None]:
    """The crops [T] of [height, width, 3], None where a frame has no crop."""
    lost = set(rng.choice(len(crops), max(1, round(_MISSING_CROPS * len(crops))), replace=False).tolist())
    return [None if i in lost else crop for i, crop in enumerate(crops)]


def _write_crops(folder: Path, crops: list[np.ndarray | None]) -> None:
    folder.mkdir(parents=True)
    for frame, crop in enumerate(crops, start=1):
        if crop is not None:
            Image.fromarray(crop).save(folder / crop_name(frame), quality=90)


def _write_labels(path: Path, task: Task, labels: np.ndarray, last_newline: bool) -> None:
    """Writes label lines [L] or [L, fields] under the task's header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(f"{number:g}" for number in row) for row in labels.reshape(len(labels), -1).tolist()]
    path.write_text("\n".join([task.header, *lines]) + "\n" * last_newline)


def _frames(faces: list[list[np.ndarray | None]], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A recording's frames [height, width, 3]: its faces side by side on a wall; a missing crop shows no face."""
    height, width = _CELL
    wall = rng.integers(60, 120, (height, width * len(faces), 3), dtype=np.uint8)
    top, left = (height - CROP_SIDE) // 2, (width - CROP_SIDE) // 2
    for crops in zip(*faces, strict=True):
        frame = wall.copy()
        for i, crop in enumerate(crops):
            if crop is not None:
                start = i * width + left
                frame[top : top + CROP_SIDE, start : start + CROP_SIDE] = crop
        yield frame


def _write_test_set(folder: Path, rows: dict[str, int]) -> None:
    """Writes each task's list of test videos, and its template with a row for each of their label lines."""
    for files in (TEST_LISTS, TEMPLATES):
        (folder / files[EXPR.name]).parent.mkdir(parents=True)
    template = [f"{frame_name(video, row)}," for video, count in rows.items() for row in range(1, count + 1)]
    for task in TASKS.values():
        (folder / TEST_LISTS[task.name]).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
        (folder / TEMPLATES[task.name]).write_text("\n".join([task.submission_header, *template]) + "\n")
