"""The store gives back what the release holds: every label at its frame, every crop byte for byte."""

import gc
import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.data.media.decode import read_times
from abaw_expr.data.store.store import (
    MANIFEST,
    MAPPED_BYTES,
    STORE_FORMAT,
    Frames,
    _Mapped,
    open_store,
)
from abaw_expr.data.store.stored_crops import decode_crop
from abaw_expr.data.store.tar import pack
from abaw_expr.errors import StoreError
from abaw_expr.tasks.names import crop_name, recording_of
from abaw_expr.tasks.task import EXPR, VA
from tests.helpers.stored import write_tables

CROPS = ("cropped_aligned", "cropped_aligned_new_50_vids")


def crops_of(release: Path, video: str) -> dict[int, bytes]:
    """A video's crops by frame number."""
    return {int(path.stem): path.read_bytes() for root in CROPS for path in (release / root / video).glob("*.jpg")}


def annotations(release: Path) -> dict[str, list[int]]:
    """Label lines by video, of the videos that the organisers annotate."""
    files = release.glob("6th_ABAW_Annotations/EXPR_Recognition_Challenge/*_Set/*.txt")
    return {path.stem: [int(line) for line in path.read_text().split()[1:]] for path in files}


def test_every_label_is_at_its_frame(release: Path, store: Path) -> None:
    lines = annotations(release)
    videos = {video.name: video for video in open_store(store, EXPR).videos}
    assert lines.keys() == {name for name, video in videos.items() if video.split != "test"}
    for name, video in videos.items():
        label = video.frames.label.tolist()
        expected = lines.get(name, [])
        assert label == expected + [-1] * (len(label) - len(expected))


@pytest.mark.parametrize("mapped", [MAPPED_BYTES, 0])
def test_every_crop_comes_back_byte_for_byte(
    mapped: int, release: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abaw_expr.data.store.store.MAPPED_BYTES", mapped)
    assert open_store(store, EXPR).videos
    for video in open_store(store, EXPR).videos:
        crops = crops_of(release, video.name)
        assert 0 < len(crops) < len(video.frames)
        for row in range(len(video.frames)):
            stored = video.jpeg(row)
            assert stored == crops.get(row + 1)
        assert video.frames.has_crop.tolist() == [row + 1 in crops for row in range(len(video.frames))]


def maps(store: Path) -> set[str]:
    """Names of the tars of a store that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[-1]).name for line in lines if str(store) in line and line.endswith(".tar")}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list maps")
def test_tars_are_mapped_while_there_is_room(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # what other tests had mapped
    first, second, *_ = open_store(store, EXPR).videos
    tar, other = f"{first.name}.tar", f"{second.name}.tar"
    room = _Mapped.bytes_mapped + max((first.folder / tar).stat().st_size, (second.folder / other).stat().st_size)
    monkeypatch.setattr("abaw_expr.data.store.store.MAPPED_BYTES", room)
    rows = [int(video.frames.has_crop.argmax()) for video in (first, second)]
    crops = [first.jpeg(rows[0]), second.jpeg(rows[1])]
    assert maps(store) == {tar}
    first, second, *_ = open_store(store, EXPR).videos
    assert [second.jpeg(rows[1]), first.jpeg(rows[0])] == crops[::-1]
    assert maps(store) == {other}


@pytest.mark.parametrize("mapped", [MAPPED_BYTES, 0])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_tar_that_was_cut_short_gives_what_it_still_holds(
    kept: float, mapped: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abaw_expr.data.store.store.MAPPED_BYTES", mapped)
    whole = open_store(store, EXPR).videos[0]
    video = replace(whole, folder=Path(shutil.copytree(whole.folder, tmp_path / "copy")))
    tar = video.folder / f"{video.name}.tar"
    size = int(kept * tar.stat().st_size)
    with open(tar, "ab") as file:
        file.truncate(size)
    rows = video.frames.has_crop.nonzero()[0].tolist()
    there = [row for row in rows if video.frames.offset[row] + video.frames.size[row] <= size]
    gone = [row for row in rows if video.frames.offset[row] >= size]
    assert (len(there) > 0) == (kept > 0)
    assert gone
    for row in there:
        image, expected = decode_crop(video, row), decode_crop(whole, row)
        assert image is not None
        assert expected is not None
        assert image.tolist() == expected.tolist()
    assert [decode_crop(video, row) for row in gone] == [None] * len(gone)


def test_tar_opens_with_an_ordinary_tool(release: Path, store: Path) -> None:
    assert open_store(store, EXPR).videos
    for video in open_store(store, EXPR).videos:
        with tarfile.open(video.folder / f"{video.name}.tar") as tar:
            members = {int(Path(member.name).stem): tar.extractfile(member) for member in tar.getmembers()}
            found = {frame: file.read() for frame, file in members.items() if file is not None}
        assert found == crops_of(release, video.name)


def test_frames_open_with_an_ordinary_tool(release: Path, store: Path) -> None:
    assert open_store(store, EXPR).videos
    for video in open_store(store, EXPR).videos:
        table = pd.read_parquet(video.folder / f"{video.name}.parquet")
        assert table["frame"].tolist() == list(range(1, len(table) + 1))
        if video.split != "test":
            labels = pd.read_parquet(video.folder / f"{video.name}.expr.parquet")
            assert labels["label"].tolist() == video.frames.label.tolist()
            assert labels["label"].dtype == np.int8
        (path,) = release.glob(f"videos/*/{recording_of(video.name)}.mp4")
        times = read_times(path)
        assert table["time"].tolist()[: len(times)] == times.tolist()
        assert table["time"].is_monotonic_increasing


def test_audio_is_that_of_the_recording(store: Path) -> None:
    videos = open_store(store, EXPR).videos
    silent = [video for video in videos if video.audio is None]
    assert [video.split for video in silent] == ["test"]
    for video in videos:
        if video.audio is None:
            continue
        assert video.audio.dtype == np.float16
        assert video.audio.shape[1] == 64
        wide = np.asarray(video.audio, np.float64)
        assert video.audio_mean == pytest.approx(wide.mean(axis=0), rel=1e-6)
        assert video.audio_std == pytest.approx(wide.std(axis=0), rel=1e-6)


def test_people_of_a_recording_fraction_its_audio(store: Path) -> None:
    left, right = (video for video in open_store(store, EXPR).videos if recording_of(video.name) != video.name)
    assert (left.folder, left.name[-5:], right.name[-6:]) == (right.folder, "_left", "_right")
    assert left.frames.label.tolist() != right.frames.label.tolist()


def test_frames_round_trip(tmp_path: Path) -> None:
    frames = Frames(
        time=np.array([0, 0.1, 7.25]),
        label=np.array([-1, 0, 7], np.int8),
        offset=np.array([0, 2**40, 512]),
        size=np.array([0, 5, 9], np.int32),
    )
    found = write_tables(tmp_path, "a", frames.time, frames.label, frames.offset, frames.size).frames
    for name in ("time", "label", "offset", "size"):
        assert getattr(found, name).tolist() == getattr(frames, name).tolist()
        assert getattr(found, name).dtype == getattr(frames, name).dtype
    assert found.has_crop.tolist() == [False, True, True]


def test_places_in_a_tar_are_those_of_the_bytes(tmp_path: Path) -> None:
    files = {f"{i:05d}.jpg": bytes([i]) * size for i, size in enumerate((1, 511, 512, 513, 70_000))}
    places = pack(tmp_path / "a.tar", iter(files.items()))
    data = (tmp_path / "a.tar").read_bytes()
    assert [data[offset : offset + size] for offset, size in places] == list(files.values())


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 9_999_999), st.binary(max_size=1_500)), max_size=25))
def test_tar_is_what_tarfile_writes(tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, bytes]]) -> None:
    root = tmp_path_factory.getbasetemp()
    pack(root / "ours.tar", ((crop_name(frame), data) for frame, data in files))
    with tarfile.open(root / "theirs.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for frame, data in files:
            entry = tarfile.TarInfo(crop_name(frame))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert (root / "ours.tar").read_bytes() == (root / "theirs.tar").read_bytes()


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "store"))


def edit(store: Path, **values: object) -> None:
    manifest = json.loads((store / MANIFEST).read_bytes())
    (store / MANIFEST).write_text(json.dumps({**manifest, **values}))


def test_store_of_another_format_or_task_is_refused(copy: Path) -> None:
    columns = {"expr": {"columns": ["Anger"], "digest": ""}}
    for values, message in (
        ({"format": 2}, f"the store has another format; found 2; expected {STORE_FORMAT}"),
        ({"tasks": columns}, r"the store has other columns of EXPR; found \['Anger'\]; expected \['Neutral', 'Anger'"),
    ):
        whole = (copy / MANIFEST).read_bytes()
        edit(copy, **values)
        again = "Run `prepare` into a new folder, then delete the old one"
        with pytest.raises(StoreError, match=f"manifest.json: {message}.*{again}"):
            open_store(copy, EXPR)
        (copy / MANIFEST).write_bytes(whole)
    assert open_store(copy, EXPR).videos
    message = (
        r"store: the store has no annotations of VA; found 'annotations of EXPR'\. Add .*\(VA_Estimation_Challenge"
    )
    tasks = json.loads((copy / MANIFEST).read_bytes())["tasks"]
    edit(copy, tasks={"expr": tasks["expr"]})
    with pytest.raises(StoreError, match=message):
        open_store(copy, VA)


def test_incomplete_store_is_refused(copy: Path) -> None:
    (copy / MANIFEST).write_bytes(b"{")
    with pytest.raises(StoreError, match=r"manifest\.json: is not JSON.*it continues where it stopped"):
        open_store(copy, EXPR)
    (copy / MANIFEST).unlink()
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read.*it continues where it stopped"):
        open_store(copy, EXPR)


def test_store_that_lost_a_recording_is_refused(copy: Path) -> None:
    shutil.rmtree(next((copy / "recordings").iterdir()))
    with pytest.raises(StoreError, match=r"recording\.json: cannot be read"):
        open_store(copy, EXPR)


def test_split_without_videos_is_refused(store: Path) -> None:
    opened = open_store(store, EXPR)
    assert {video.split for video in opened.split("val")} == {"val"}
    with pytest.raises(StoreError, match="holds no demo video"):
        opened.split("demo")
