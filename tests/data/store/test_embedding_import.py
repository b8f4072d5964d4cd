"""A team's own embeddings: every form of file gives the same rows, and every wrong row is named."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.commands.main import main
from abaw_expr.data.store.embedding_files import VideoRows
from abaw_expr.data.store.embeddings import EMBEDDINGS
from abaw_expr.data.store.store import StoredVideo, open_store
from abaw_expr.tasks.task import EXPR

WIDTH = 3


@pytest.fixture
def root(store: Path, tmp_path: Path) -> Path:
    shutil.copytree(store, tmp_path / "store")
    return tmp_path / "store"


def rows_of(video: StoredVideo) -> np.ndarray:
    """Rows that name their video and frame, float32 [T, 3]."""
    count = len(video.frames)
    return np.stack([np.full(count, len(video.name)), np.arange(count), np.arange(count) % 7 / 8], 1).astype(np.float32)


def write(form: str, folder: Path, video: str, rows: np.ndarray, time: np.ndarray) -> None:
    frame = np.arange(1, len(rows) + 1)
    path = folder / f"{video}.{form.split()[0]}"
    table = pd.DataFrame(rows, columns=["f0", "f1", "f2"])
    if form == "npy":
        np.save(path, rows)
    elif form == "npz":
        np.savez(path, embedding=rows[::-1], frame=frame[::-1])
    elif form == "npz time":
        np.savez(path, embedding=rows, time=time)
    elif form == "parquet":
        table.assign(frame=frame).sample(frac=1, random_state=0).to_parquet(path, index=False)
    else:
        table.assign(Time=time).to_csv(path, index=False)


def call(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize("form", ["npy", "npz", "npz time", "parquet", "csv time"])
def test_every_form_gives_the_rows_of_every_frame(form: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    videos = open_store(root, EXPR).videos
    for video in videos:
        write(form, tmp_path / "mine", video.name, rows_of(video), video.frames.time)
    assert call("import", tmp_path / "mine", "--embeddings", "--store", root, "--name", "mine") == 0
    for video in open_store(root, EXPR).videos:
        np.testing.assert_array_equal(video.embedding("mine"), rows_of(video).astype(np.float16))


def test_one_table_of_all_videos(root: Path, tmp_path: Path) -> None:
    videos = open_store(root, EXPR).videos
    parts = [
        pd.DataFrame(rows_of(one)).assign(video=one.name, frame=np.arange(1, len(one.frames) + 1)) for one in videos
    ]
    table = pd.concat(parts).sample(frac=1, random_state=0)
    table.columns = [str(name) for name in table.columns]
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"all.{suffix}"
        table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path, index=False)
        assert call("import", path, "--embeddings", "--store", root, "--name", suffix) == 0
        for video in open_store(root, EXPR).videos:
            np.testing.assert_array_equal(video.embedding(suffix), rows_of(video).astype(np.float16))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.replace("'", "").split())


def test_what_cannot_be_used_is_named_with_its_row(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = open_store(root, EXPR).videos
    first, count = videos[0], len(videos[0].frames)
    good, time = rows_of(first), first.frames.time
    bad_value, part_nan, far = good.copy(), good.copy(), good.copy()
    bad_value[4, 1], part_nan[5, 2], far[6, 0] = np.inf, np.nan, 1e6
    cases: list[tuple[dict[str, Any] | np.ndarray, str]] = [
        (bad_value, "row 5 cannot be used; found inf as feature 2"),
        (part_nan, "row 6 cannot be used; found nan as feature 3"),
        (far, "row 7 cannot be used; found 1000000.0 as feature 1; expected numbers within 65504"),
        (good[:-5], f"has another number of rows; found {count - 5}; expected {count}, a row a frame"),
        (good[:, :, None], "holds another array"),
        (good[:, :2], "has another number of features; found"),
        ({"embedding": good, "frame": np.zeros(count)}, "row 1 has no frame; found 0.0"),
        ({"embedding": good, "frame": np.ones(count)}, "row 2 names a frame again; found 1"),
        ({"embedding": good, "frame": np.arange(count) + 5000}, "has no frame of the video; found 5000; expected 1 to"),
        ({"embedding": good, "frame": np.ones(2)}, "has another frame; found (2,) float64"),
        ({"embedding": good, "time": time[::-1]}, "row 2 has no time"),
        ({"features": good}, "has no array `embedding`; found features"),
        ({"embedding": np.array(["a"])}, "holds another array"),
    ]
    for number, (values, message) in enumerate(cases):
        folder = tmp_path / f"case{number}"
        folder.mkdir()
        for video in videos[1:]:
            np.save(folder / f"{video.name}.npy", rows_of(video))
        if isinstance(values, dict):
            np.savez(folder / f"{first.name}.npz", **values)
        else:
            np.save(folder / f"{first.name}.npy", values)
        assert call("import", folder, "--embeddings", "--store", root, "--name", "mine") == 2, message
        assert message in said(capsys)
    assert not (root / EMBEDDINGS / "mine" / "manifest.json").exists()


def test_videos_must_be_those_of_the_store(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, videos = tmp_path / "mine", open_store(root, EXPR).videos
    folder.mkdir()
    words = ("import", folder, "--embeddings", "--store", root, "--name", "mine")
    assert call(*words) == 2
    assert "holds no embeddings" in said(capsys)
    for video in videos[1:]:
        np.save(folder / f"{video.name}.npy", rows_of(video))
    assert call(*words) == 2
    assert f"lacks 1 videos of the store; found {videos[0].name}" in said(capsys)
    assert call(*words, "--incomplete") == 0
    assert np.isnan(open_store(root, EXPR).videos[0].embedding("mine")).all()
    capsys.readouterr()
    assert call(*words, "--incomplete") == 2
    assert "has embeddings mine already" in said(capsys)
    np.save(folder / "stranger.npy", rows_of(videos[0]))
    assert call(*words[:-1], "other", "--incomplete") == 2
    assert "has 1 videos that the store has not; found stranger" in said(capsys)
    (folder / "stranger.npy").unlink()
    (folder / f"{videos[0].name}.npy").write_bytes(b"rows")
    assert call(*words[:-1], "other") == 2
    assert f"{videos[0].name}.npy: is not a NPY file" in said(capsys)
    shutil.copy(folder / f"{videos[1].name}.npy", folder / f"{videos[1].name}.csv")
    assert call(*words[:-1], "other") == 2
    assert f"has several files of a video; found {videos[1].name}" in said(capsys)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 60), st.floats(5, 60), st.floats(5, 60))
def test_rows_with_times_are_the_nearest(frames: int, rows: int, rate: float, own_rate: float) -> None:
    """Against the definition, frame by frame."""
    times, own = np.arange(frames) / rate, np.arange(rows) / own_rate
    found = VideoRows("a", Path("a"), np.arange(rows)[:, None].astype(float), time=own).on_clock(times)[:, 0]
    limit = 1 / own_rate if rows > 1 else 1.0
    for time, row in zip(times, found.tolist(), strict=True):
        apart = np.abs(own - time)
        if apart.min() > limit + 1e-9:
            assert np.isnan(row)
        elif not np.isnan(row):
            assert apart[int(row)] <= apart.min() + 1e-9
