"""Thumbnails are the store's crops, and audio is that of the video."""

import base64
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from abaw_expr.data.store.store import open_store
from abaw_expr.report.media import QUIETEST, Media
from abaw_expr.tasks.task import EXPR


@pytest.fixture(scope="module")
def media(store: Path) -> Media:
    return Media.of(open_store(store, EXPR))


def with_crops(media: Media) -> str:
    return next(name for name, video in media.videos.items() if video.frames.has_crop.any())


def test_a_thumbnail_is_the_crop_nearest_to_the_middle(media: Media) -> None:
    name = with_crops(media)
    video = media.videos[name]
    frames = np.flatnonzero(video.frames.has_crop) + 1
    first, last = int(frames[0]), int(frames[0]) + 4
    inside = frames[(frames >= first) & (frames <= last)]
    nearest = int(inside[np.abs(inside - (first + last) / 2).argmin()])
    address = media.thumbnail(name, first, last)
    assert address is not None
    kind, _, data = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(data) == bytes(video.jpeg(nearest - 1) or b"")


def test_where_there_is_none(media: Media) -> None:
    assert media.thumbnail("other", 1, 5) is None
    assert media.audio("other", np.arange(3.0)) is None
    name = with_crops(media)
    lacking = np.flatnonzero(~media.videos[name].frames.has_crop)
    if len(lacking):
        assert media.thumbnail(name, int(lacking[0]) + 1, int(lacking[0]) + 1) is None


def test_audio_is_the_largest_of_each_step(media: Media) -> None:
    name = next(name for name, video in media.videos.items() if video.audio is not None)
    video, time = media.videos[name], np.arange(0, 4, 0.5)
    found = media.audio(name, time)
    assert found is not None
    assert found.level.max() <= 0
    assert found.level.min() >= QUIETEST
    assert video.voice is not None
    steps = np.rint(time / 0.032).astype(int)
    expected = [np.asarray(video.voice[start:stop]).max() for start, stop in pairwise(steps)]
    assert found.voice[:-1] == pytest.approx(np.array(expected, float))
    assert np.isnan(media.audio(name, np.array([0.0, 1e6])).voice[1])  # type: ignore[union-attr]
