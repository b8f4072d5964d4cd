"""Small files that each show a fault of a kind that real files have, by the name of the case."""

import random
import shutil
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.tasks.task import EXPR
from tests.helpers.clips import draw_frames, person, straight
from tests.helpers.damage import RATE, remux, write_test_video
from tests.helpers.tiny import ANNOTATIONS, annotate, crop, jpeg

ONE = 1 << 16
FRAMES = 50
"""Of a video of a release."""


def describe(folder: Path, names: Sequence[str]) -> None:
    """A description of clips, each of a subject of its own."""
    rows = "".join(f"{name},happy,{name},train\n" for name in names)
    (folder / "clips.csv").write_text(f"path,label,subject,split\n{rows}")


def write_release(root: Path, frames: int = FRAMES) -> Path:
    """A training and a validation video, with crops and videos."""
    for name, split in (("1-30-64x64", "Train_Set"), ("9-30-64x64", "Validation_Set")):
        annotate(root, name, [i % 8 for i in range(frames)], f"{ANNOTATIONS}/{split}")
        crop(root, name, range(1, frames + 1), data=jpeg())
        (root / "batch1").mkdir(exist_ok=True)
        write_test_video(root / f"batch1/{name}.mp4", "mpeg4", "aac", frames / RATE)
    return root


def write_faces(path: Path, flipped: bool = False) -> Path:
    """Two seconds of a drawn face."""
    shown = draw_frames([(person(14, 30), straight((20, 30), (60, 60), 30))])
    turned = (image[::-1].copy() if flipped else image for image in shown)
    write_video(path, Fraction(15), turned, np.zeros(2 * SAMPLE_RATE, np.int16))
    return path


def lay(source: Path, target: Path, matrix: Sequence[int]) -> Path:
    """A copy of an MP4 whose frames are to be shown by another display matrix (ISO 14496-12, 8.3.2)."""
    data, position = bytearray(source.read_bytes()), 0
    while (position := data.find(b"tkhd", position)) >= 0:
        at = position + 8 + (32 if data[position + 4] else 20) + 16
        if struct.unpack_from(">I", data, at + 36)[0]:  # the width, which audio has not
            struct.pack_into(">9i", data, at, *matrix)
        position += 4
    target.write_bytes(data)
    return target


def _bad_packets(folder: Path) -> None:
    whole = write_test_video(folder / "whole.avi", "mpeg4", "libmp3lame", 10.0)
    for name, bad in (("first.avi", 0), ("middle.avi", 100)):
        noise = bytes(random.Random(bad).randrange(1, 255) for _ in range(300))

        def replace(kind: str, number: int, bad: int = bad, noise: bytes = noise) -> bytes | None:
            return noise if (kind, number) == ("audio", bad) else None

        remux(whole, folder / name, replace=replace)
    describe(folder, ["whole.avi", "first.avi", "middle.avi"])


def _slow_stamps(folder: Path) -> None:
    data = bytearray(write_test_video(folder / "whole.avi", "mpeg4", "aac", 10.0).read_bytes())
    audio = data.find(b"strh", data.find(b"strh") + 4)
    struct.pack_into("<I", data, audio + 8 + 44, 1536)  # dwSampleSize
    (folder / "blocks.avi").write_bytes(data)
    describe(folder, ["whole.avi", "blocks.avi"])


def _joined(folder: Path) -> None:
    one = write_test_video(folder / "one.ts", "mpeg2video", "mp2").read_bytes()
    (folder / "joined.ts").write_bytes(one + one)


def _two_cameras(folder: Path) -> None:
    shutil.copy(write_faces(folder / "S01.mp4"), folder / "S01_left.mp4")


def _mirrored(folder: Path) -> None:
    width, height = 320, 200
    lay(write_faces(folder / "plain.mp4"), folder / "mirrored.mp4", [-ONE, 0, 0, 0, ONE, 0, width * ONE, 0, 1 << 30])
    turned = write_faces(folder / "turned.mp4", flipped=True)
    lay(turned, folder / "flipped.mp4", [ONE, 0, 0, 0, -ONE, 0, 0, height * ONE, 1 << 30])


def _macosx(folder: Path) -> None:
    root = write_release(folder / "release")
    for path in list(root.rglob("*.txt")):
        ghost = root / "__MACOSX" / path.relative_to(root).parent / f"._{path.name}"
        ghost.parent.mkdir(parents=True, exist_ok=True)
        ghost.write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")


def _inside_itself(folder: Path) -> None:
    root = write_release(folder / "release")
    (root / "cropped_aligned").rename(root / "x")
    (root / "cropped_aligned").mkdir()
    (root / "x").rename(root / "cropped_aligned/cropped_aligned")


def _end_early(folder: Path) -> None:
    root = write_release(folder / "release", 100)
    for path in sorted((root / "cropped_aligned/1-30-64x64").iterdir())[14:]:
        path.unlink()


def _table(path: Path, rows: Sequence[str], first: str) -> None:
    numbers = ",0.125" * EXPR.n_columns
    path.write_text(f"{first},{EXPR.header}\n" + "".join(f"{row}{numbers}\n" for row in rows))


def _two_video_files(folder: Path) -> None:
    root = write_release(folder / "release")
    (root / "old").mkdir()
    write_test_video(root / "old/9-30-64x64.mp4", "mpeg4", "aac", 0.5)
    _table(folder / "val.csv", [f"9-30-64x64,{i}" for i in range(1, FRAMES + 1)], "video,frame")


def _audio_alone(folder: Path) -> None:
    write_test_video(folder / "a.mp4", None, "aac")
    write_test_video(folder / "b.webm", None, "libopus")
    write_test_video(folder / "c.opus", None, "libopus")
    write_test_video(folder / "d.aac", None, "aac")
    write_test_video(folder / "e.aiff", None, "pcm_s16be")
    write_test_video(folder / "f.wav", None, "pcm_s16le").rename(folder / "f.mov")
    write_test_video(folder / "g.m4a", None, "aac")
    describe(folder, ["a.mp4", "b.webm", "c.opus", "d.aac", "e.aiff", "f.mov", "g.m4a"])


def _stray(folder: Path) -> None:
    plain = write_test_video(folder / "plain.mp4", "mpeg4", "aac")
    remux(plain, folder / "stray.mkv", audio=lambda number: 20 * 3600 if number >= 40 else 0)
    describe(folder, ["stray.mkv"])


def _held(folder: Path) -> None:
    face = np.zeros((112, 112, 3), np.uint8)
    face[:56], face[:, :20] = 220, face[:, :20] // 2
    Image.fromarray(face).save(folder / "upright.png")
    tag = Image.Exif()
    tag[274] = 6
    Image.fromarray(np.rot90(face).copy()).save(folder / "exif.jpg", exif=tag, quality=95)
    Image.fromarray(face[..., 0].astype(np.float32) / 255).save(folder / "float.tif")
    Image.fromarray(face[..., 0].astype(np.int32) * 256).save(folder / "wide.tif")
    describe(folder, ["upright.png", "exif.jpg", "float.tif", "wide.tif"])


def _numbers(folder: Path) -> None:
    for video, folder_name in (("171", "ann"), ("0012", "ann"), ("NA", "na")):
        annotate(folder, video, [0] * (5 if video == "NA" else 20), folder_name)
    _table(folder / "m.csv", [f"{v},{i}" for v in ("171", "0012") for i in range(1, 21)], "video,frame")
    _table(folder / "na.csv", [f"NA,{i}" for i in range(1, 6)], "video,frame")
    _table(folder / "png.csv", [f"171/{i:05d}.png" for i in range(1, 21)], "image_location")


def _dollars(folder: Path) -> None:
    write_test_video(folder / "film.mp4", "mpeg4", "aac").rename(folder / "a$b{c_$.mp4")


def _no_crops(folder: Path) -> None:
    root = write_release(folder / "release")
    for path in list((root / "cropped_aligned/1-30-64x64").iterdir()):
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    for path in (root / "cropped_aligned/9-30-64x64").iterdir():
        path.unlink()


CASES: dict[str, Callable[[Path], None]] = {
    "01-one-bad-sound-packet": _bad_packets,
    "02-sound-stamps-slower-than-samples": _slow_stamps,
    "03-joined-transport-streams": _joined,
    "05-mirrored-display-matrix": _mirrored,
    "06-macosx-folder": _macosx,
    "07-crops-folder-inside-itself": _inside_itself,
    "08-crops-end-early": _end_early,
    "09-two-films-of-one-name": _two_video_files,
    "11-sound-without-pictures": _audio_alone,
    "12-stray-time-stamp": _stray,
    "13-pictures-as-they-are-held": _held,
    "17-dollars-in-the-name": _dollars,
    "20-crops-that-are-none": _no_crops,
    "04-faces-of-left-and-right-cameras": _two_cameras,
    "15-video-names-read-as-numbers": _numbers,
}
