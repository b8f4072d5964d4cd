"""Crops by their file headers alone: the same size and colours that a decoder finds, and nothing that it cannot use."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from abaw_expr.data.release.crops import (
    CHANNELS,
    CROP_SIDES,
    CropReport,
    crop_problems,
    jpeg_shape,
    list_crops,
    read_crop,
    read_crops,
)
from tests.helpers.tiny import crop, jpeg

MODES = {"L": 1, "RGB": 3, "CMYK": 4}


@given(
    st.sampled_from(sorted(MODES)),
    st.integers(1, 300),
    st.integers(1, 300),
    st.booleans(),
    st.integers(20, 100),
    st.binary(max_size=200),
)
def test_shape_is_what_a_decoder_finds(
    mode: str, width: int, height: int, progressive: bool, quality: int, comment: bytes
) -> None:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG", quality=quality, progressive=progressive, comment=comment)
    data = file.getvalue()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.mode) == ((width, height), mode)
    usable = width in CROP_SIDES and height in CROP_SIDES
    assert jpeg_shape(data) == ((height, width, MODES[mode]) if usable else None)


@given(st.binary(max_size=60), st.integers(0, 800), st.integers(0, 20))
def test_no_bytes_whatever_are_too_strange(strange: bytes, position: int, cut: int) -> None:
    data = jpeg()
    damaged = (data[:position] + strange + data[position + len(strange) :])[: len(data) - cut]
    shape = jpeg_shape(damaged)
    assert shape is None or (shape[0] in CROP_SIDES and shape[1] in CROP_SIDES and shape[2] in CHANNELS)


def header(data: bytes, at: int, value: bytes) -> bytes:
    """A JPEG with other bytes at a place after the marker of its size."""
    start = data.index(b"\xff\xc0") + at
    return data[:start] + value + data[start + len(value) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[2:],
        lambda data: data[:-70],
        lambda data: data[:4] + b"\xff\xd9",
        lambda data: header(data, 1, b"\xc3"),  # lossless, which no decoder reads
        lambda data: header(data, 4, b"\x0c"),  # 12 bits
        lambda data: header(data, 5, b"\xff\xff"),  # 65,535 pixels high
        lambda data: header(data, 9, b"\x02"),  # two channels
        lambda data: data[:2] + b"\xff\xda" + data[2:],  # the image before its size
        lambda data: b"\x89PNG\r\n\x1a\n" + bytes(100) + b"\xff\xd9",
    ],
)
def test_what_cannot_be_used_has_no_shape(damage: object) -> None:
    assert callable(damage)
    assert jpeg_shape(jpeg()) == (112, 112, 3)
    assert jpeg_shape(damage(jpeg())) is None


def test_fill_bytes_before_a_marker_are_allowed() -> None:
    data = jpeg()
    assert jpeg_shape(data[:2] + b"\xff\xff" + data[2:]) == (112, 112, 3)


@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_files_are_read_whole(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert read_crop(str(tmp_path / "a")) == data
    assert read_crop(str(tmp_path / "none")) == read_crop(str(tmp_path)) == b""


def test_closed_folder_is_reported_and_the_other_root_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crop(tmp_path, "a", [1, 2])
    crop(tmp_path, "a", [3], crops="cropped_aligned_new_50_vids")
    folders = tuple(tmp_path / root / "a" for root in ("cropped_aligned", "cropped_aligned_new_50_vids"))
    scandir = os.scandir

    def unreadable_folders(path: Path) -> object:
        if Path(path) == folders[0]:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", unreadable_folders)
    crops = list_crops(folders)
    assert list(crops.files) == [3]
    (problem,) = crop_problems("a", crops, CropReport())
    assert (problem.kind, problem.detail) == ("unreadable folder", "cropped_aligned/a (Permission denied)")
    assert "chmod" in problem.remedy


@pytest.mark.parametrize(
    ("frames", "whole", "detail"),
    [
        (range(1, 101), 100, None),
        (range(11, 91), 100, None),
        (range(1, 15), 100, "crops end at frame 14 of 100"),
        (range(60, 101), 100, "crops begin at frame 60 of 100"),
        (range(40, 51), 100, "crops begin at frame 40 and end at frame 50 of 100"),
        (range(1, 900), 1000, "crops end at frame 899 of 1000"),
        (range(1, 901), 1000, None),
        (range(1, 3), 100, None),  # a person seen briefly
        (range(1, 15), 0, None),
    ],
)
def test_crops_of_a_part_are_reported(tmp_path: Path, frames: range, whole: int, detail: str | None) -> None:
    crop(tmp_path, "a", frames, data=jpeg())
    crops, report = list_crops((tmp_path / "cropped_aligned/a",)), CropReport()
    assert len(list(read_crops(crops, report))) == len(frames)
    assert [p.detail for p in crop_problems("a", crops, report, whole)] == ([] if detail is None else [detail])


@pytest.mark.parametrize(
    ("frames", "detail"),
    [
        (range(1, 101), None),
        ([*range(1, 50), *range(51, 101)], None),
        ([*range(20, 40)], None),  # no face need be there before the first and after the last crop
        ([1, 2, 5, 10], "6 of the frames 1 to 10 have no crop, at most from 6 to 9"),
    ],
)
def test_gaps_are_reported_where_there_are_many(tmp_path: Path, frames: range | list[int], detail: str | None) -> None:
    crop(tmp_path, "a", frames, data=jpeg())
    crops, report = list_crops((tmp_path / "cropped_aligned/a",)), CropReport()
    assert [name for name, _ in read_crops(crops, report)] == [f"{frame:05d}.jpg" for frame in frames]
    assert [p.detail for p in crop_problems("a", crops, report)] == ([] if detail is None else [detail])
