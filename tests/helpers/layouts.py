"""A tiny data set of every kind, of real files through real encoders, and the labels and splits expected of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.data.datasets.registry import read_dataset
from abaw_expr.data.store.prepare import Prepared, prepare
from tests.helpers.tiny import ANNOTATIONS, add, add_validation, crop, video_file, voice


@dataclass(frozen=True)
class Layout:
    """A tiny data set of one kind."""

    kind: DatasetKind
    write: Callable[[Path], None]
    """Writes it into a folder."""
    labels: dict[str, list[int]]
    """The label of every frame, by clip."""
    subjects: dict[str, str]
    """Who is in each clip."""
    splits: dict[str, str]
    """The split of each subject that the data set gives; of the others a fraction validates."""
    clip: str
    """A clip to break: the file, or an image of it, under the folder."""
    broken: str
    """Its name in the store."""
    mislabel: Callable[[Path], None]
    """Gives a clip an unknown class."""
    unknown: str
    """The error then, as a pattern: file, line, what was found."""
    branches: tuple[str, ...]
    """The modalities that it has."""
    variant: str = ""
    """What tells it from another layout of its kind."""
    release: str = ""
    """The path of the release, under the folder."""
    crops: tuple[str, ...] = ()
    """Roots of crops under the folder."""
    images_are_faces: bool = False

    @property
    def name(self) -> str:
        return self.kind + self.variant

    def prepare(self, root: Path, store: Path) -> Prepared:
        options = ClipOptions()
        if self.kind != "aff-wild2":
            folders = tuple(root / name for name in self.crops)
            options = ClipOptions(None, folders, self.images_are_faces, val_fraction=0.4)
        return prepare_kind(self.kind, root / self.release, store, options)


def prepare_kind(kind: DatasetKind, release: Path, store: Path, options: ClipOptions | None = None) -> Prepared:
    read = partial(read_dataset, kind, options=options or ClipOptions())
    return prepare(release, store, 1, lambda done, total: None, read)


def record(path: Path, seconds: float = 0.6, rate: int = 16_000, channels: int = 1) -> Path:
    """Writes a voice as an audio file, in the encoding of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clock, known = np.arange(int(seconds * rate)) / rate, voice(seconds)
    spoken = np.interp(clock, np.arange(len(known)) / 16_000, known).astype(np.int16).repeat(channels)[None]
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as out:
        layout = "stereo" if channels == 2 else "mono"
        stream = out.add_stream("flac" if path.suffix == ".flac" else "pcm_s16le", rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(spoken, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def paint(folder: Path, names: Sequence[str], mode: str = "L", size: tuple[int, int] = (48, 48)) -> None:
    """Writes images, each in its own shade."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new(mode, size, 20 * number if mode == "L" else (20 * number,) * 3).save(folder / name)


def sequence(root: Path, subject: str, take: str, frames: int, emotion: str = "", mode: str = "L") -> None:
    """Writes a sequence of CK+, coded if `emotion` says as what."""
    name = f"{subject}_{take}"
    folder = root / "cohn-kanade-images" / subject / take
    paint(folder, [f"{name}_{i:08d}.png" for i in range(1, frames + 1)], mode)
    (root / "Emotion" / subject / take).mkdir(parents=True)
    if emotion:
        (root / "Emotion" / subject / take / f"{name}_{frames:08d}_emotion.txt").write_text(f"   {emotion}\n")


def _aff_wild2(root: Path) -> None:
    add(root, "a")
    add(root, "b")
    add_validation(root)


def _mislabel_aff_wild2(root: Path) -> None:
    path = root / ANNOTATIONS / "Train_Set/a.txt"
    path.write_text(path.read_text().replace("\n2\n", "\n8\n"))


AFEW = {
    **{"Train/Angry/1": "1", "Train/Neutral/2": "2", "Val/Happy/3": "3", "Val_AFEW/Surprise/4": "4"},
    **{"Test/5": "5", "Test_AFEW/Sad/6": "6"},
}


def _afew(root: Path) -> None:
    for path, name in AFEW.items():
        video_file(root / "afew", name, frames=6, batch=path.rpartition("/")[0])
        crop(root, name, (1, 2, 3), "found")


def _mislabel_afew(root: Path) -> None:
    (root / "afew/Train/Angry").rename(root / "afew/Train/Furious")


def _ck(root: Path) -> None:
    sequence(root, "S005", "001", 10, "3.0000000e+00")
    sequence(root, "S005", "002", 4)
    sequence(root, "S010", "001", 6, "5.0000000e+00", mode="RGB")
    sequence(root, "S011", "001", 6, "2.0000000e+00")
    (root / "cohn-kanade-images/.DS_Store").touch()


CK48 = {"anger": ("S010_004", (17, 18, 19)), "contempt": ("S139_002", (12,)), "happy": ("S010_006", (14, 15))}
"""Sequence and images of each class folder."""


def _ck48(root: Path) -> None:
    for word, (name, frames) in CK48.items():
        paint(root / "CK+48" / word, [f"{name}_{frame:08d}.png" for frame in frames])


def _mislabel_ck48(root: Path) -> None:
    (root / "CK+48/anger").rename(root / "CK+48/furious")


def _mislabel_ck(root: Path) -> None:
    next(root.glob("Emotion/S005/001/*.txt")).write_text("  8.0000000e+00\n")


def _ravdess(root: Path) -> None:
    record(root / "Actor_01/03-01-05-01-02-01-01.wav", rate=48_000, channels=2)
    record(root / "Actor_01/03-01-02-01-02-01-01.flac")
    record(root / "Actor_02/03-01-08-02-02-01-02.wav")
    record(root / "Actor_03/03-01-07-02-02-01-03.wav")
    video_file(root, "01-02-03-01-01-01-04", frames=6, batch="Actor_04")
    record(root / "Actor_04/03-02-03-01-01-01-04.wav")  # the same performance, as audio alone


def _mislabel_ravdess(root: Path) -> None:
    path = root / "Actor_01/03-01-05-01-02-01-01.wav"
    path.rename(path.with_name("03-01-09-01-02-01-01.wav"))


CLIPS = """path,label,subject,split,start,end,name
films/a.mp4,happy,anna,train,,,
films/b.mp4,Contempt,ben,val,0,0.25,
films/b.mp4,NEUTRAL,ben,,0.4,,
sounds/c.flac,calm,anna,,,,
faces,fearful,dora,,,,smile
face.png,,emil,train,,,
"""


def _clips(root: Path) -> None:
    video_file(root, "a", frames=6, batch="films")
    video_file(root, "b", frames=6, batch="films")
    record(root / "sounds/c.flac", seconds=0.1)
    paint(root / "faces", [f"face{i}.png" for i in range(8, 12)], "RGB", (60, 40))
    paint(root, ["face.png"])
    crop(root, "a", (1, 2), "found")
    (root / "clips.csv").write_text(CLIPS)


def _mislabel_clips(root: Path) -> None:
    (root / "clips.csv").write_text(CLIPS.replace("calm", "bored"))


LAYOUTS = (
    Layout(
        kind="aff-wild2",
        write=_aff_wild2,
        labels={"a": [0, 1, 2, 3, 4, 5, 6, 7, 0, 1], "b": [0, 1, 2, 3, 4, 5, 6, 7, 0, 1], "val": [0] * 5},
        subjects={"a": "a", "b": "b", "val": "val"},
        splits={"a": "train", "b": "train", "val": "val"},
        clip="batch1/a.mp4",
        broken="a",
        mislabel=_mislabel_aff_wild2,
        unknown=r"Train_Set/a\.txt:4: has a label outside its range; found '8'; expected an integer from 0 to 7",
        branches=("audio", "visual"),
    ),
    Layout(
        kind="afew",
        write=_afew,
        labels={"1": [1] * 6, "2": [0] * 6, "3": [4] * 6, "4": [6] * 6, "5": [-1] * 6, "6": [5] * 6},
        subjects={name: name for name in AFEW.values()},
        splits={"1": "train", "2": "train", "3": "val", "4": "val", "5": "test", "6": "test"},
        clip="afew/Train/Angry/1.mp4",
        broken="1",
        mislabel=_mislabel_afew,
        unknown=r"Train/Furious/1\.mp4: has an unknown class; found 'Furious'; expected neutral, calm, .*--labels",
        branches=("audio", "visual"),
        release="afew",
        crops=("found",),
    ),
    Layout(
        kind="ck+",
        write=_ck,
        labels={
            "S005_001": [0] * 2 + [-1] * 5 + [2] * 3,
            "S005_002": [0, -1, -1, -1],
            "S010_001": [0, -1, -1, -1, 4, 4],
            "S011_001": [0, -1, -1, -1, 7, 7],
        },
        subjects={"S005_001": "S005", "S005_002": "S005", "S010_001": "S010", "S011_001": "S011"},
        splits={},
        clip="cohn-kanade-images/S010/001",
        broken="S010_001",
        mislabel=_mislabel_ck,
        unknown=r"S005_001_00000010_emotion\.txt:1: has an unknown class; found '8\.0000000e\+00'; expected a number",
        branches=("visual",),
        images_are_faces=True,
    ),
    Layout(
        kind="ck+",
        write=_ck48,
        labels={
            **{f"S010_004_{frame:08d}": [1] for frame in (17, 18, 19)},
            **{f"S139_002_{frame:08d}": [7] for frame in (12,)},
            **{f"S010_006_{frame:08d}": [4] for frame in (14, 15)},
        },
        subjects={f"{name}_{frame:08d}": name[:4] for name, frames in CK48.values() for frame in frames},
        splits={},
        clip="CK+48/anger/S010_004_00000017.png",
        broken="S010_004_00000017",
        mislabel=_mislabel_ck48,
        unknown=r"furious/S010_004_00000017\.png: has an unknown class; found 'furious'; expected neutral, calm, ",
        branches=("visual",),
        variant=", single faces",
        images_are_faces=True,
    ),
    Layout(
        kind="ravdess",
        write=_ravdess,
        labels={
            "03-01-05-01-02-01-01": [1] * 15,
            "03-01-02-01-02-01-01": [0] * 15,
            "03-01-08-02-02-01-02": [6] * 15,
            "03-01-07-02-02-01-03": [2] * 15,
            "01-02-03-01-01-01-04": [4] * 6,
        },
        subjects={
            "03-01-05-01-02-01-01": "01",
            "03-01-02-01-02-01-01": "01",
            "03-01-08-02-02-01-02": "02",
            "03-01-07-02-02-01-03": "03",
            "01-02-03-01-01-01-04": "04",
        },
        splits={},
        clip="Actor_02/03-01-08-02-02-01-02.wav",
        broken="03-01-08-02-02-01-02",
        mislabel=_mislabel_ravdess,
        unknown=r"03-01-09-01-02-01-01\.wav: has an unknown class; found '09'; expected neutral, calm, ",
        branches=("audio",),
    ),
    Layout(
        kind="clips",
        write=_clips,
        labels={"a": [4] * 6, "b": [7] * 3 + [-1] + [0] * 2, "c": [0] * 3, "smile": [3] * 4, "face": [-1]},
        subjects={"a": "anna", "b": "ben", "c": "anna", "smile": "dora", "face": "emil"},
        splits={"anna": "train", "ben": "val", "emil": "train"},
        clip="sounds/c.flac",
        broken="c",
        mislabel=_mislabel_clips,
        unknown=r"clips\.csv:5: has an unknown class; found 'bored'; expected neutral.*map it by a line `bored: Class`",
        branches=("audio", "visual"),
        release="clips.csv",
        crops=("found",),
        images_are_faces=True,
    ),
)
