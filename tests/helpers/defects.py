"""A release of whole videos beside one video for every defect that a real one may have; preparing and killing it."""

import ctypes
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.store.prepare import REPORT
from abaw_expr.data.store.store import MANIFEST
from abaw_expr.data.synthetic.corpus import TEST_LISTS, write_video
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR
from tests.helpers.tiny import ANNOTATIONS, annotate, jpeg, voice

RATE = Fraction(10)
CROPS, LATER_CROPS = "cropped_aligned", "cropped_aligned_new_50_vids"
SPLITS = ("train", "val", "test")
_MOST_LINKS = 30_000
"""Names a file may have; file systems allow some more."""


@dataclass(frozen=True)
class Whole:
    """A video of the release without any defect yet; its files are links, so they are replaced, not changed."""

    root: Path
    name: str

    @property
    def video_file(self) -> Path:
        return self.root / f"batch1/{self.name}.mp4"

    @property
    def crops(self) -> Path:
        return self.root / CROPS / self.name

    def replace_video(self, data: bytes) -> None:
        self.video_file.unlink()
        self.video_file.write_bytes(data)

    def replace_crop(self, data: bytes, frame: int = 3) -> None:
        path = self.crops / crop_name(frame)
        path.unlink()
        path.write_bytes(data)

    def replace_audio(self, audio: Callable[[float], np.ndarray | None]) -> None:
        """Replaces the audio, given the seconds of the video, under as many frames."""
        frames = len(list(self.crops.iterdir()))
        self.video_file.unlink()
        write_grey_video(self.video_file, frames, audio(float(frames / RATE)))


def write_grey_video(path: Path, frames: int, audio: np.ndarray | None) -> None:
    """Writes a grey video with this audio, int16 at 16 kHz."""
    write_video(path, RATE, (np.full((64, 64, 3), 100 + i % 100, np.uint8) for i in range(frames)), audio)


def hum(seconds: float, level: int = 9_000) -> np.ndarray:
    """A tone, which it does not, int16."""
    phase = np.arange(int(seconds * SAMPLE_RATE)) * 2 * np.pi * 220 / SAMPLE_RATE
    return (level * np.sin(phase)).astype(np.int16)


def image(mode: str = "RGB", width: int = 112, height: int = 112) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG")
    return file.getvalue()


def _audio_twice(video: Whole) -> None:
    source = video.video_file.rename(video.video_file.with_suffix(".once"))
    with av.open(str(source)) as once, av.open(str(video.video_file), "w") as out:
        streams = [out.add_stream_from_template(once.streams[kind]) for kind in (0, 1, 1)]
        for packet in once.demux():
            for stream in streams if packet.size else ():
                if stream.type == packet.stream.type:
                    copy = av.Packet(bytes(packet))
                    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                    copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
                    out.mux(copy)
    source.unlink()


def _double_last_crop_number(video: Whole) -> None:
    frames = len(os.listdir(video.crops))
    (video.crops / crop_name(frames)).rename(video.crops / crop_name(2 * frames))


def _capitals(video: Whole) -> None:
    video.video_file.rename(video.video_file.with_name(video.video_file.stem.upper() + ".MP4"))
    video.crops.rename(video.crops.with_name(video.crops.name.title()))


def _decomposed(video: Whole) -> None:
    video.video_file.rename(video.video_file.with_name("cafe\u0301.mp4"))


def _link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _remove_video(video: Whole) -> None:
    video.video_file.unlink()


def _lose_video(video: Whole) -> None:
    video.video_file.unlink()
    video.video_file.symlink_to("nowhere.mp4")


def _short_of_crops(video: Whole) -> None:
    frames = len(os.listdir(video.crops))
    for frame in range(frames // 3, 2 * (frames // 3)):
        (video.crops / crop_name(frame)).unlink()


def _close(video: Whole) -> None:
    os.chmod(video.crops, 0)


def _also_in_the_later_root(video: Whole) -> None:
    later = video.root / LATER_CROPS / video.name
    later.mkdir(parents=True)
    (later / crop_name(2)).write_bytes(jpeg(200))


DEFECTS: dict[str, tuple[Callable[[Whole], object], Sequence[str]]] = {
    "truncated": (lambda v: v.replace_video(v.video_file.read_bytes()[:1000]), ["unreadable video"]),
    "unfilmed": (_remove_video, ["no video file"]),
    "lost film": (_lose_video, ["no video file"]),
    "filmed twice": (lambda v: write_grey_video(v.root / "batch2" / v.video_file.name, 5, None), ["two video files"]),
    "empty crop": (lambda v: v.replace_crop(b""), ["unreadable crops"]),
    "one pixel": (lambda v: v.replace_crop(image(width=1, height=1)), ["unreadable crops"]),
    "other size": (lambda v: v.replace_crop(image(width=96, height=128)), ["crops of another size"]),
    "grey": (lambda v: v.replace_crop(image("L")), ["crops in other colours"]),
    "cmyk": (lambda v: v.replace_crop(image("CMYK")), ["crops in other colours"]),
    "jumping": (_short_of_crops, ["gaps in the crops"]),
    "from zero": (lambda v: (v.crops / "00000.jpg").write_bytes(jpeg()), ["crop of frame 0"]),
    "beyond": (_double_last_crop_number, ["count mismatch", "gaps in the crops"]),
    "in both roots": (_also_in_the_later_root, ["duplicate crops"]),
    "twice by number": (lambda v: (v.crops / "7.jpg").write_bytes(jpeg()), ["duplicate crops"]),
    "untidy": (lambda v: (v.crops / "notes.txt").write_bytes(b""), ["unknown files"]),
    "loop inside": (lambda v: _link(v.crops / "self", "."), ["unknown files"]),
    "capitals": (_capitals, ["name spelled differently", "name spelled differently"]),
    "caf\u00e9": (_decomposed, ["name spelled differently"]),
    "two spaces": (lambda v: v.crops.rename(v.crops.with_name("two  spaces ")), ["name spelled differently"]),
    "closed": (_close, ["unreadable folder"]),
    "no crops": (lambda v: shutil.rmtree(v.crops), ["no crops"]),
    "no audio": (lambda v: v.replace_audio(lambda seconds: None), ["no audio"]),
    "two sounds": (_audio_twice, ["several audio streams"]),
    "silent": (lambda v: v.replace_audio(lambda seconds: hum(seconds, level=0)), ["silent audio"]),
    "hum": (lambda v: v.replace_audio(hum), ["little voice"]),
    "clipped": (lambda v: v.replace_audio(lambda seconds: voice(seconds, gain=20)), ["clipped audio"]),
    "short audio": (lambda v: v.replace_audio(lambda seconds: voice(seconds / 2)), ["short audio"]),
    "long audio": (lambda v: v.replace_audio(lambda seconds: voice(seconds + 2)), ["long audio"]),
}
"""By the name of the video that gets it: what is done to it, and the kinds of problem that must be reported of it."""
LEFT_OUT = {"truncated", "unfilmed", "lost film"}
ELSEWHERE = {
    "batch1/loop": ["link loop"],
    "cropped_aligned/loop": ["link loop"],
    "cropped_aligned/lost": ["broken link"],
    "batch1/lost film.mp4": ["broken link"],
    "secret": ["unreadable folder"],
    "stranger": ["not annotated"],
}
"""The same of what belongs to no video."""


def write_whole(
    root: Path, names: Sequence[str], frames: int, data: bytes | None = None, most_links: int = _MOST_LINKS
) -> None:
    """Whole videos that share one file and one crop: a disk's worth of names, not of bytes.

    `data` is the frame, and `most_links` how many names a file of it has.
    """
    source = root.with_name(f"{root.name}-source")
    source.mkdir(parents=True)
    video_file, crop = source / "film.mp4", source / "crop.jpg"
    write_grey_video(video_file, frames, voice(float(frames / RATE)))
    (root / "batch1").mkdir(parents=True)
    links = most_links
    for number, name in enumerate(names):
        split = SPLITS[number % 3]
        if split != "test":
            of_split = {"train": "Train_Set", "val": "Validation_Set"}[split]
            annotate(root, name, [i % 8 for i in range(frames)], f"{ANNOTATIONS}/{of_split}")
        os.link(video_file, root / f"batch1/{name}.mp4")
        folder = root / CROPS / name
        folder.mkdir(parents=True)
        for frame in range(1, frames + 1):
            if links == most_links:
                links = 0
                crop.unlink(missing_ok=True)
                crop.write_bytes(data or jpeg())
            os.link(crop, folder / crop_name(frame))
            links += 1
    listed = root / TEST_LISTS[EXPR.name]
    listed.parent.mkdir(parents=True)
    listed.write_text("\n".join(names[2::3]) + "\n", encoding="utf-8")
    shutil.rmtree(source)


def write_defective(root: Path, whole: Sequence[str], frames: int) -> dict[str, list[str]]:
    """Writes those whole videos and one for each defect; returns the kinds of problem to report, by what has them."""
    write_whole(root, [*whole, *DEFECTS], frames)
    for name, (plant, _) in DEFECTS.items():
        plant(Whole(root, name))
    _link(root / "batch1/loop", "..")
    _link(root / "cropped_aligned/loop", root)
    _link(root / "cropped_aligned/lost", "nowhere")
    write_grey_video(root / "batch1/stranger.mp4", 5, None)
    (root / "secret").mkdir(mode=0)
    return {name: list(kinds) for name, (_, kinds) in DEFECTS.items()} | ELSEWHERE


def usable_crops(name: str, frames: int) -> int:
    """How many crops a video keeps, whatever was done to it."""
    lost = {"empty crop": 1, "one pixel": 1, "jumping": frames // 3, "closed": frames, "no crops": frames}
    return frames - lost.get(name, 0)


def drop_root_rights() -> None:
    """Lets the next program of this process fail at closed folders as any user's does, even as root; for Popen.

    It takes CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH out of the bounding set (prctl 24, PR_CAPBSET_DROP).
    """
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def start_prepare(release: Path, store: Path) -> subprocess.Popen[str]:
    """The command in a process group of its own, with two workers and without root's rights."""
    command = [sys.executable, "-m", "abaw_expr", "prepare", "--release", str(release), "--store", str(store)]
    return subprocess.Popen(
        [*command, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        preexec_fn=drop_root_rights,
    )


def kill_three_times(release: Path, store: Path, recordings: int) -> None:
    """Starts the command three times and kills its whole process group at a random moment, later each time."""
    rng = random.Random(time.time_ns())
    for third in range(3):
        process = start_prepare(release, store)
        at, pause = rng.randint(1 + third * recordings // 4, (third + 1) * recordings // 4), rng.uniform(0, 0.1)
        while process.poll() is None and len(list(store.glob("recordings/[!.]*"))) < at:
            time.sleep(0.001)
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        print(f"killed {pause:.3f} s after {at} recordings")  # shown where a test fails
        assert process.returncode == -signal.SIGKILL
        assert not (store / MANIFEST).exists()


def reported(store: Path) -> dict[str, list[str]]:
    """Kinds of problem by what has them, out of a store's report; each must have a remedy."""
    problems = json.loads((store / REPORT).read_bytes())["problems"]
    assert len({(p["kind"], p["video"], p["detail"]) for p in problems}) == len(problems)
    assert all(problem["remedy"].endswith(".") for problem in problems)
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[problem["video"]].append(problem["kind"])
    return {name: sorted(found) for name, found in kinds.items()}
