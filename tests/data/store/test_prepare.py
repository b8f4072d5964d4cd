"""From release to store: damage is reported and skipped, a killed run continues, equal releases give equal bytes."""

import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.windows import Windows, modalities
from abaw_expr.data.problems import READ_RIGHT
from abaw_expr.data.store.prepare import REPORT, Prepared, prepare
from abaw_expr.data.store.store import Store, StoredVideo, open_store
from abaw_expr.errors import ReleaseError
from abaw_expr.files import open_file
from abaw_expr.settings import DataSettings
from abaw_expr.tasks.task import EXPR
from tests.helpers.damage import write_test_video
from tests.helpers.defects import image
from tests.helpers.tiny import (
    ANNOTATIONS,
    add,
    add_validation,
    annotate,
    broken_jpeg,
    contents,
    crop,
    jpeg,
    kinds,
    run,
    video_file,
)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A release of two whole videos, `a` and `val`."""
    root = tmp_path / "release"
    add(root, "a")
    add_validation(root)
    return root


TWO = {"expr": {"train": 1, "val": 1}}
"""The videos of `tiny` by challenge and split."""


def stored(store: Path, name: str) -> StoredVideo:
    (video,) = (video for video in open_store(store, EXPR).videos if video.name == name)
    return video


def test_a_video_that_may_not_be_read_wants_the_right(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> int:
        if path.name == "a.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path)

    monkeypatch.setattr("abaw_expr.data.media.containers.open_file", closed)
    (problem,) = run(tiny, tmp_path / "store").problems
    assert (problem.kind, problem.video, problem.detail) == ("unreadable video", "a", "Permission denied")
    assert problem.remedy == READ_RIGHT


def test_whole_release_has_nothing_to_report(tiny: Path, tmp_path: Path) -> None:
    prepared = run(tiny, tmp_path / "store")
    assert prepared == Prepared(problems=(), left_out=(), videos=TWO, frames=15, crops=4, made=2, kept=0)
    report = json.loads((tmp_path / "store" / REPORT).read_bytes())
    recordings = report.pop("recordings")
    assert report == {"problems": [], "left_out": [], "videos": TWO, "frames": 15, "crops": 4}
    assert [(name, row["picture_seconds"], row["rate"]) for name, row in recordings.items()] == [
        ("a", 0.9, 10),
        ("val", 0.4, 10),
    ]


def test_progress_is_reported_in_frames_the_longest_recording_first(tiny: Path, tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    add(tiny, "longest", lines=20, frames=20)
    prepare(tiny, tmp_path / "store", 1, lambda done, total: reported.append((done, total)))
    assert reported == [(21, 38), (32, 38), (38, 38)]  # 20, 10 and 5 label lines, and 1 each for its video


def cut(fraction: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * fraction)]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [cut(0.5), cut(0.01), cut(0), lambda data: bytes(len(data))])
def test_unreadable_video_is_named_and_left_out(tiny: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    untouched = tmp_path / "untouched"
    run(tiny, untouched)
    path = add(tiny, "broken")
    path.write_bytes(damage(path.read_bytes()))
    prepared = run(tiny, tmp_path / "store")
    assert kinds(prepared) == {"broken": ["unreadable video"]}
    assert prepared.left_out == ("broken",)
    assert prepared.videos == TWO
    assert contents(tmp_path / "store/recordings/a") == contents(untouched / "recordings/a")
    report = json.loads((tmp_path / "store" / REPORT).read_bytes())
    assert [(p["kind"], p["video"]) for p in report["problems"]] == [("unreadable video", "broken")]
    assert report["left_out"] == ["broken"]


def test_both_people_of_an_unreadable_video_are_named(tiny: Path, tmp_path: Path) -> None:
    for name in ("pair_left", "pair_right"):
        annotate(tiny, name, [0, 1])
    video_file(tiny, "pair").write_bytes(b"no video")
    prepared = run(tiny, tmp_path / "store")
    assert kinds(prepared) == {"pair_left": ["unreadable video"], "pair_right": ["unreadable video"]}
    assert prepared.left_out == ("pair_left", "pair_right")


def test_audio_alone_is_no_clock_of_labels(tiny: Path, tmp_path: Path) -> None:
    path = add(tiny, "deaf")
    path.unlink()
    write_test_video(path, None, "aac")
    prepared = run(tiny, tmp_path / "store")
    (problem,) = prepared.problems
    assert (problem.kind, problem.video) == ("unreadable video", "deaf")
    assert problem.detail == "it holds no video frame to time its labels by"
    assert prepared.left_out == ("deaf",)


def test_video_cut_after_its_index_is_reported(tiny: Path, tmp_path: Path) -> None:
    """Such a file opens, and has fewer frames than annotations."""
    path = add(tiny, "cut", lines=40, frames=40)
    with (
        av.open(str(path)) as source,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    prepared = run(tiny, tmp_path / "store")
    assert kinds(prepared) == {"cut": ["count mismatch", "no audio"]}
    assert len(stored(tmp_path / "store", "cut").frames) == 40


def test_video_mended_in_place_is_prepared(tiny: Path, tmp_path: Path) -> None:
    """A download that reserved its space first has the right size before it has the right bytes."""
    path = add(tiny, "broken")
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    assert run(tiny, tmp_path / "store").left_out == ("broken",)
    path.write_bytes(whole)
    prepared = run(tiny, tmp_path / "store")
    assert (prepared.left_out, prepared.problems) == ((), ())
    assert (prepared.made, prepared.kept) == (1, 2)


def test_each_defect_is_reported_by_its_kind(tiny: Path, tmp_path: Path) -> None:
    annotate(tiny, "unfilmed", [0, 1])
    crop(tiny, "unfilmed", [1])
    video_file(tiny, "unlabelled")
    add(tiny, "silent", audio=0)
    add(tiny, "hushed", lines=40, frames=40, audio=0.5)
    annotate(tiny, "faceless", [0] * 10)
    video_file(tiny, "faceless")
    add(tiny, "untidy")
    (tiny / "cropped_aligned/untidy/notes.txt").write_bytes(b"")
    prepared = run(tiny, tmp_path / "store")
    expected = {
        "unfilmed": ["no video file"],
        "unlabelled": ["not annotated"],
        "silent": ["no audio"],
        "hushed": ["short audio"],
        "faceless": ["no crops"],
        "untidy": ["unknown files"],
    }
    assert kinds(prepared) == expected
    assert prepared.left_out == ("unfilmed",)
    report = json.loads((tmp_path / "store" / REPORT).read_bytes())
    assert {p["video"]: [p["kind"]] for p in report["problems"]} == expected
    assert all(p["detail"] and p["remedy"] for p in report["problems"])
    assert stored(tmp_path / "store", "silent").audio is None
    assert not stored(tmp_path / "store", "faceless").frames.has_crop.any()


def test_audio_damaged_from_its_start_is_reported(tiny: Path, tmp_path: Path) -> None:
    path = add(tiny, "damaged", lines=20, frames=20)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in packets:
        assert place is not None
        data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    prepared = run(tiny, tmp_path / "store")
    assert kinds(prepared) == {"damaged": ["damaged audio", "short audio"]}
    assert stored(tmp_path / "store", "damaged").audio is None


def test_counts_may_differ_as_in_the_real_release(tiny: Path, tmp_path: Path) -> None:
    for more in (-2, -1, 0, 1, 2, 3, 5):
        add(tiny, f"{more:+d}", lines=10 + more)
    prepared = run(tiny, tmp_path / "store")
    assert kinds(prepared) == {name: ["count mismatch"] for name in ("-2", "+3", "+5")}
    details = {problem.video: problem.detail for problem in prepared.problems}
    assert details["+5"].startswith("15 label lines, 10 frames")
    longer, shorter = stored(tmp_path / "store", "+5").frames, stored(tmp_path / "store", "-2").frames
    assert longer.time == pytest.approx(np.arange(15) / 10)  # after the last frame at the mean rate
    assert longer.label.tolist() == [i % 8 for i in range(15)]
    assert shorter.label.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, -1, -1]


def test_crop_beyond_the_last_frame_is_reported(tiny: Path, tmp_path: Path) -> None:
    crop(tiny, "a", [14])
    assert kinds(run(tiny, tmp_path / "store")) == {"a": ["count mismatch", "gaps in the crops"]}
    assert stored(tmp_path / "store", "a").frames.has_crop.tolist() == [True] * 2 + [False] * 11 + [True]


@pytest.mark.parametrize("frame", [9_999_999, 20_231, 1_021])
def test_crop_far_beyond_every_frame_is_left_out(tiny: Path, tmp_path: Path, frame: int) -> None:
    crop(tiny, "a", [frame])
    (problem,) = run(tiny, tmp_path / "store").problems
    assert (problem.kind, problem.detail) == (
        "crops of no frame",
        f"1 are numbered far beyond its 10 frames: {frame:05d}.jpg",
    )
    frames = stored(tmp_path / "store", "a").frames
    assert frames.has_crop.tolist() == [True] * 2 + [False] * 8


def huge_jpeg() -> bytes:
    """A JPEG whose damaged header claims 65,535 x 65,535 pixels."""
    data = jpeg()
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + b"\xff" * 4 + data[size + 4 :]


def test_unreadable_crops_are_counted_and_stepped_over(tiny: Path, tmp_path: Path) -> None:
    unreadable = {3: b"", 4: b"garbage" * 100, 5: jpeg()[:300], 6: jpeg()[:-200] + bytes(200), 7: huge_jpeg()}
    for frame, data in unreadable.items():
        crop(tiny, "a", [frame], data=data)
    (problem,) = run(tiny, tmp_path / "store").problems
    assert (problem.kind, problem.video) == ("unreadable crops", "a")
    assert problem.detail == "5 unreadable: 00003.jpg, 00004.jpg, 00005.jpg, 00006.jpg, 00007.jpg"
    assert stored(tmp_path / "store", "a").frames.has_crop.tolist() == [True] * 2 + [False] * 8


def test_crop_that_only_decoding_finds_broken_is_a_missing_one(tiny: Path, tmp_path: Path) -> None:
    crop(tiny, "a", [3], data=broken_jpeg())
    run(tiny, tmp_path / "store")
    video = stored(tmp_path / "store", "a")
    assert video.jpeg(2) is not None
    batch = Windows(FrameIndex([video], EXPR), modalities(["visual"], DataSettings(), {}))[Samples(np.arange(5))]
    assert batch.present(["visual"]).tolist() == [True, True, False, False, False]


def test_annotation_that_cannot_be_used_stops_the_run(tiny: Path, tmp_path: Path) -> None:
    run(tiny, tmp_path / "store")
    before = contents(tmp_path / "store")
    (tiny / ANNOTATIONS / "Train_Set/a.txt").write_text(f"{EXPR.header}\n0\n9\n")
    with pytest.raises(ReleaseError, match=r"a\.txt:3: has a label outside its range"):
        run(tiny, tmp_path / "store")
    assert contents(tmp_path / "store") == before


def stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """When each file under a folder was last written, and its inode."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_second_run_does_only_what_is_new(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(tiny, store)
    first, before = contents(store), stamps(store / "recordings")
    again = run(tiny, store)
    assert (again.made, again.kept) == (0, 2)
    assert contents(store) == first
    add(tiny, "b")
    more = run(tiny, store)
    assert (more.made, more.kept) == (1, 2)
    after = stamps(store / "recordings")
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(store / "recordings").parts[0] for path in after.keys() - before.keys()} == {"b"}
    assert [video.name for video in open_store(store, EXPR).videos] == ["a", "b", "val"]


def test_mended_crop_of_the_same_size_is_seen(tiny: Path, tmp_path: Path) -> None:
    """A damaged disk keeps sizes; only unreadable crops are read again, so that a second run stays quick."""
    crop(tiny, "a", [3], data=bytes(len(jpeg(30))))
    (problem,) = run(tiny, tmp_path / "store").problems
    assert problem.kind == "unreadable crops"
    assert run(tiny, tmp_path / "store").made == 0
    crop(tiny, "a", [3])
    prepared = run(tiny, tmp_path / "store")
    assert (prepared.problems, prepared.made) == ((), 1)


@pytest.mark.parametrize("lost", ["a.tar", "a.parquet", "a.expr.parquet", "sound.npy", "recording.json"])
def test_recording_that_lost_bytes_is_made_again(tiny: Path, tmp_path: Path, lost: str) -> None:
    """As a power cut leaves files whose bytes never came to the disk."""
    store = tmp_path / "store"
    run(tiny, store)
    before = contents(store)
    os.truncate(store / "recordings/a" / lost, 0)
    assert run(tiny, store).made == 1
    assert contents(store) == before


def test_crops_of_any_colour_and_size_are_learned_from(tiny: Path, tmp_path: Path) -> None:
    frames = {3: image("L"), 4: image("CMYK"), 5: image(width=64, height=200), 6: image(width=1, height=1)}
    for frame, data in frames.items():
        crop(tiny, "a", [frame], data=data)
    found = {problem.kind: problem.detail for problem in run(tiny, tmp_path / "store").problems}
    assert found == {
        "unreadable crops": "1 unreadable: 00006.jpg",
        "crops of another size": "1 are not 112 x 112 pixels: 00005.jpg",
        "crops in other colours": "2 are grey or CMYK: 00003.jpg, 00004.jpg",
    }
    video = stored(tmp_path / "store", "a")
    batch = Windows(FrameIndex([video], EXPR), modalities(["visual"], DataSettings(), {}))[Samples(np.arange(10))]
    assert batch.present(["visual"]).tolist() == [True] * 5 + [False] * 5
    assert batch.inputs["visual"].shape == (5, 1, 3, 112, 112)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["labels", "crops", "video", "split"])
def test_changed_recording_is_made_again(tiny: Path, tmp_path: Path, change: str) -> None:
    store = tmp_path / "store"
    run(tiny, store)
    before = open_store(store, EXPR).digest
    if change == "labels":
        annotate(tiny, "a", [7] * 10)
    elif change == "crops":
        crop(tiny, "a", [5], crops="cropped_aligned_new_50_vids")
    elif change == "video":
        video_file(tiny, "a", rate=Fraction(15, 2))
    else:
        add(tiny, "b")
        run(tiny, store)
        os.rename(tiny / ANNOTATIONS / "Train_Set/a.txt", tiny / ANNOTATIONS / "Validation_Set/a.txt")
    prepared = run(tiny, store)
    assert prepared.made == 1
    run(tiny, tmp_path / "fresh")
    assert contents(store) == contents(tmp_path / "fresh")
    assert open_store(store, EXPR).digest != before


@pytest.mark.slow
def test_workers_do_not_change_a_byte(release: Path, store: Path, tmp_path: Path) -> None:
    run(release, tmp_path / "store", workers=2)
    assert contents(tmp_path / "store") == contents(store)


def test_store_does_not_know_where_the_release_lay(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "moved/elsewhere")
    run(tiny, tmp_path / "one")
    run(tmp_path / "moved", tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def split_names(store: Store) -> dict[str, list[str]]:
    return {split: sorted(video.name for video in store.split(split)) for split in ("train", "val", "test")}


def test_synthetic_release_comes_through_whole(release: Path, store: Path) -> None:
    """Its only defects are the two of its audio that are made on purpose."""
    report = json.loads((store / REPORT).read_bytes())
    assert sorted(p["kind"] for p in report["problems"]) == ["no audio", "short audio"]
    files = {
        split: release / ANNOTATIONS / folder for split, folder in (("train", "Train_Set"), ("val", "Validation_Set"))
    }
    names = {split: sorted(path.stem for path in folder.glob("*.txt")) for split, folder in files.items()}
    names["test"] = sorted(path.stem for path in (release / "hidden_test_labels").glob("*.txt"))
    assert split_names(open_store(store, EXPR)) == names
