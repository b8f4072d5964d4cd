"""Faces from real files by the real detector: upright, numbered in display order, each person under their own name."""

import csv
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.media.decode import read_times
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.faces import detect
from abaw_expr.faces.detections import load_detections, save_detections
from abaw_expr.faces.extract import TRACKS_TABLE, Faces, extract_faces
from abaw_expr.faces.folders import CROPS, FOUND
from abaw_expr.faces.frames import read_frames, upright
from tests.helpers.clips import SIDE, draw_frames, encode, lay_on_side, person, straight
from tests.helpers.tiny import ANNOTATIONS, add_validation, annotate, run

pytestmark = pytest.mark.slow  # real video files through the real detector


COUNT = 40
RATE = Fraction(25, 2)
AWAY = range(17, 28)
"""Frames, from 0, without the right one; every third is searched."""
ANNE, BEN = 14, 18
"""Seeds of two drawn people: she is pale with black hair, he is dark."""
PALE = 155
"""Her skin is brighter than this, his is not."""


def alone(seed: int = ANNE, count: int = COUNT) -> Sequence[np.ndarray]:
    return list(draw_frames([(person(seed, count), straight((20, 30), (180, 60), count))]))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people who come close to each other; the right one is away for a while."""
    anne, ben = person(ANNE, COUNT), person(BEN, COUNT, away=AWAY)
    shown = draw_frames([(anne, straight((0, 30), (60, 60), COUNT)), (ben, straight((210, 60), (165, 40), COUNT))])
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    write_video(path, RATE, shown, None)
    return path


@pytest.fixture(scope="module")
def found(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("found")
    assert main(["faces", "--videos", str(two), "--out", str(out), "--every", "3"]) == 0
    return out


def frames_of(folder: Path) -> set[int]:
    return {int(path.stem) for path in folder.iterdir()}


def skin(path: Path) -> float:
    """How bright the middle of a crop is."""
    with Image.open(path) as face:
        assert face.size == (CROP_SIDE, CROP_SIDE)
        return float(np.asarray(face.convert("L"))[50:85, 35:77].mean())


def one(out: Path, video: Path, every: int = 3) -> Faces:
    faces = extract_faces({video.stem: video}, out, every)[video.stem]
    assert isinstance(faces, Faces)
    return faces


def test_two_people_stay_two(found: Path) -> None:
    left, right = (found / CROPS / f"two{suffix}" for suffix in ("_left", "_right"))
    assert all(skin(path) > PALE for path in left.iterdir())
    assert all(skin(path) < PALE for path in right.iterdir())
    everyone = set(range(1, COUNT + 1))
    assert frames_of(left) == everyone
    assert frames_of(right) == everyone - {i + 1 for i in AWAY}
    assert sorted(path.name for path in (found / CROPS).iterdir()) == ["two_left", "two_right"]


def test_crops_are_upright_and_aligned(found: Path, two: Path) -> None:
    """The eyes of a crop are darker than the skin between and below, where the template has them."""
    paths = list((found / CROPS / "two_left").iterdir())
    assert paths
    for path in paths:
        with Image.open(path) as face:
            grey = np.asarray(face.convert("L"), float)
        eyes = [grey[46:58, x - 6 : x + 6].min() for x in (38, 74)]
        assert max(eyes) < 100 < grey[58:66, 52:60].mean()


def test_a_corrected_table_is_followed_without_a_new_search(
    found: Path, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(found, out)
    monkeypatch.setattr(detect, "find_faces", lambda images: pytest.fail("the video was searched again"))
    table = out / FOUND / TRACKS_TABLE
    text = table.read_text()
    table.write_text(text.replace(",left\n", ",ignore\n").replace(",right\n", ",Main\n"))
    arguments = ["faces", "--videos", str(two), "--out", str(out), "--every", "3"]
    assert main(arguments) == 0
    assert [path.name for path in (out / CROPS).iterdir()] == ["two"]
    assert all(skin(path) < PALE for path in (out / CROPS / "two").iterdir())
    rows = list(csv.DictReader(table.open()))
    assert [row["choice"] for row in rows] == ["ignore", "main"]
    stamp = (out / CROPS / "two").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out / CROPS / "two").stat().st_mtime_ns == stamp  # nothing is written twice


def test_an_invalid_table_is_refused(
    found: Path, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / FOUND / TRACKS_TABLE
    table.parent.mkdir()
    table.write_text((found / FOUND / TRACKS_TABLE).read_text().replace(",right\n", ",centre\n"))
    assert main(["faces", "--videos", str(two), "--out", str(tmp_path)]) == 2
    error_text = " ".join(capsys.readouterr().err.split())
    assert "tracks.csv:3: has an unknown row; found 'track 2, choice centre'" in error_text
    table.write_text("video;track;choice\n")
    assert main(["faces", "--videos", str(two), "--out", str(tmp_path)]) == 2
    assert "has a wrong header" in " ".join(capsys.readouterr().err.split())


def test_the_table_keeps_what_is_known_of_other_videos(found: Path, tmp_path: Path) -> None:
    (tmp_path / FOUND).mkdir()
    table = tmp_path / FOUND / TRACKS_TABLE
    table.write_text((found / FOUND / TRACKS_TABLE).read_text())
    video = encode(tmp_path / "anne.mp4", alone(count=4), "libx264", [i / RATE for i in range(4)])
    one(tmp_path, video)
    rows = [(row["video"], row["choice"]) for row in csv.DictReader(table.open())]
    assert rows == [("anne", "main"), ("two", "left"), ("two", "right")]


def test_boxes_are_in_the_pixels_of_the_video(tmp_path: Path) -> None:
    """Large frames are reduced before detection, by no whole number."""
    large = [np.asarray(Image.fromarray(p).resize((1366, 854))) for p in alone(count=1)]
    found = detect.detect(encode(tmp_path / "large.mp4", large, "libx264", [Fraction(0)]), 5)
    small = detect.detect(encode(tmp_path / "small.mp4", alone(count=1), "libx264", [Fraction(0)]), 5)
    assert (found.width, found.height) == (1366, 854)
    scale = [1366 / 320, 854 / 200] * 2
    assert found.box[0] == pytest.approx(small.box[0] * scale, abs=0.12 * SIDE * scale[0])


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_phone_held_upright_gives_upright_faces(codec: str, tmp_path: Path) -> None:
    """The file stores the frame on its side, with a display matrix; phones write HEVC."""
    upright_ones = draw_frames([(person(ANNE, 12), straight((20, 60), (60, 150), 12))], size=(200, 320))
    video = encode(
        tmp_path / "phone.mp4",
        [np.rot90(frame).copy() for frame in upright_ones],
        codec,
        [i / RATE for i in range(12)],
    )
    lay_on_side(video)
    faces = one(tmp_path, video)
    assert (faces.detections.width, faces.detections.height) == (200, 320)
    crops = faces.crops["phone"]
    assert frames_of(crops) == set(range(1, 13))
    box = faces.tracks[0].positions[0, :4]
    assert box[[0, 2]].mean() == pytest.approx(20 + SIDE / 2, abs=12)
    assert box[[1, 3]].mean() == pytest.approx(60 + SIDE / 2, abs=15)
    for path in crops.iterdir():
        with Image.open(path) as face:
            grey = np.asarray(face.convert("L"), float)
        assert grey[46:58, 33:43].min() < 100 < grey[58:66, 52:60].mean()


def test_frames_keep_their_numbers_at_a_varying_rate(tmp_path: Path) -> None:
    """A frame's place among those shown is its number, however long each is shown."""
    steps = np.random.default_rng(0).integers(2, 30, COUNT)
    times = [Fraction(int(t), 100) for t in np.cumsum(steps) - steps[0]]
    hidden = set(range(20, 36))
    shown = draw_frames([(person(ANNE, COUNT, away=hidden), straight((20, 30), (180, 60), COUNT))])
    video = encode(tmp_path / "varying.mp4", shown, "libx264", times)
    assert read_times(video) == pytest.approx([float(t) for t in times], abs=1e-3)
    faces = one(tmp_path, video, every=1)
    assert frames_of(faces.crops["varying"]) == set(range(1, COUNT + 1)) - {i + 1 for i in hidden}


def test_a_damaged_frame_does_not_move_the_others(tmp_path: Path) -> None:
    """Frames whose packets are lost take their numbers with them."""
    whole, holed = tmp_path / "whole.mov", tmp_path / "holed.mov"
    shades = [np.full((64, 64, 3), 6 * i, np.uint8) for i in range(40)]
    with av.open(str(whole), "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        for shade in shades:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        out.mux(stream.encode())
    data = bytearray(whole.read_bytes())
    start = 0
    for number in range(1, 41):
        start = data.index(b"\x89PNG", start) + 4
        if number in (5, 6, 20):
            data[start : start + 40] = bytes(40)
    holed.write_bytes(data)
    read = {number: float(upright(frame).mean()) for number, frame in read_frames(holed)}
    assert set(range(1, 41)) - read.keys() == {5, 6, 20}
    assert all(mean == pytest.approx(6 * (number - 1), abs=3) for number, mean in read.items())


def test_detections_are_kept_as_they_are(found: Path, two: Path, tmp_path: Path) -> None:
    kept = detect.detect(two, 3)
    path = tmp_path / "kept.parquet"
    save_detections(path, kept, ["two", 1])
    again = load_detections(path, 3, ["two", 1])
    assert again is not None
    for name, value in vars(kept).items():
        assert np.array_equal(getattr(again, name), value), name
    assert load_detections(path, 5, ["two", 1]) is None
    assert load_detections(path, 3, ["two", 2]) is None
    path.write_bytes(path.read_bytes()[:100])
    assert load_detections(path, 3, ["two", 1]) is None


def test_a_file_that_is_no_video_is_named_and_skipped(
    two: Path, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    out = tmp_path / "out"
    shutil.copytree(found, out)
    assert main(["faces", "--videos", str(broken), str(two), "--out", str(out), "--every", "3"]) == 1
    captured = capsys.readouterr()
    assert "1 videos could not be read: broken (Invalid data" in " ".join(captured.err.split())
    assert "two_left, two_right" in captured.out


def test_several_workers_find_what_one_does(two: Path, found: Path, tmp_path: Path) -> None:
    other, broken = tmp_path / "anne.mp4", tmp_path / "broken.mp4"
    write_video(other, RATE, alone(count=12), None)
    broken.write_bytes(b"no video")
    written, reported = [], list[tuple[int, int]]()
    for workers in (1, 2):
        out = tmp_path / str(workers)
        videos = {path.stem: path for path in (other, broken, tmp_path / "nothing.mp4", two)}
        faces = extract_faces(videos, out, 3, on_progress=lambda *passed: reported.append(passed), workers=workers)
        assert [*faces] == [*videos]
        assert [isinstance(one, Faces) for one in faces.values()] == [True, False, False, True]
        assert reported[-1] == (2 * (12 + COUNT),) * 2
        written.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert written[0] == written[1]
    assert written[0][Path(FOUND, "two.parquet")] == (found / FOUND / "two.parquet").read_bytes()


def test_a_release_without_crops_is_completed(two: Path, tmp_path: Path) -> None:
    """Where the release has two people in a video, those two are wanted; `prepare` reads the crops as they are."""
    release, store = tmp_path / "release", tmp_path / "store"
    add_validation(release)  # which has crops
    for name in ("two", "two_right"):
        annotate(release, name, [0] * COUNT)
    (release / "batch1" / "two.mp4").write_bytes(two.read_bytes())
    assert main(["faces", "--release", str(release), "--every", "3"]) == 0
    assert sorted(path.name for path in (release / CROPS).iterdir()) == ["two", "two_right"]
    prepared = run(release, store)
    assert prepared.crops == COUNT + len(frames_of(release / CROPS / "two_right")) + 2
    problems = {(problem.video, problem.kind) for problem in prepared.problems}
    assert problems == {("two", "no audio"), ("two_right", "gaps in the crops")}  # the person who was away
    assert (release / ANNOTATIONS).is_dir()


@pytest.mark.parametrize(
    "arguments", [[], ["--release", "r", "--out", "o"], ["--videos", "v.mp4"], ["--every", "0"], ["--workers", "-1"]]
)
def test_flags_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    assert main(["faces", *arguments]) == 2
