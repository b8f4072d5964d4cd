"""A video's crops: which files they are, and which of them are images that training can use."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack_from

from abaw_expr.data.discovery import is_leftover
from abaw_expr.data.media.images import CROP_SIDE, IMAGE_SUFFIXES, ImageError, as_crop, is_rotated
from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.errors import is_machine_error, shorten
from abaw_expr.files import open_file
from abaw_expr.tasks.names import crop_name

CROP_SIDES = range(16, 4097)
"""Pixels of a usable image's sides: fewer show no face, and damaged headers give more."""
CHANNELS = (1, 3, 4)
"""Channels of grey, RGB and CMYK images, all of which are decoded as RGB."""
_MOST_GAPS = 0.1
"""The largest fraction of frames without a crop, between a video's first and last crop, without a report; 0.02 is
usual."""
_LEAST_MISSED = 10
"""Frames without a crop, before a video's first or after its last crop, that are never reported."""
_FEW = 3
"""Fewest crops of a video for which late starts and early ends are reported; fewer are of a person seen briefly."""
_ENDINGS = "|".join(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_NAME = re.compile(rf"0*([1-9][0-9]{{0,6}})\.({_ENDINGS})", re.IGNORECASE)
"""A frame number, counted from 1, of up to seven digits, so that dates are none."""
_ZERO = re.compile(rf"0+\.({_ENDINGS})", re.IGNORECASE)
_FRAMES = {b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"}
"""JPEG markers before an image's size: baseline, extended and progressive, which every decoder reads."""
_START, _END = b"\xff\xd8", b"\xff\xd9"


@dataclass
class Crops:
    """The files of a video's crops, and the other files in their folders."""

    files: dict[int, os.DirEntry[str]] = field(default_factory=dict)
    """By frame, ascending."""
    unknown: list[str] = field(default_factory=list)
    """Names of files that are no crops."""
    duplicates: list[str] = field(default_factory=list)
    """Names of crops whose frame has another one."""
    unreadable_folders: list[str] = field(default_factory=list)
    """Folders that cannot be read, each with the reason."""


@dataclass
class CropReport:
    """What the files of crops turned out to be."""

    frames: list[int] = field(default_factory=list)
    """Frames with a usable crop, in the order in which they were read."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Names of unusable files by frame."""
    resized: list[str] = field(default_factory=list)
    """Names of crops that are not `CROP_SIDE` wide and high."""
    not_rgb: list[str] = field(default_factory=list)
    """Names of crops in grey or CMYK."""
    converted: list[str] = field(default_factory=list)
    """Names of crops that are no JPEG, or a rotated one, and were converted to an upright JPEG."""


def frame_of(name: str) -> int | None:
    """The frame of a crop, by the name of its file; None for other files."""
    known = _NAME.fullmatch(name)
    return None if known is None else int(known[1])


def list_crops(folders: tuple[Path, ...]) -> Crops:
    """A video's crops. Of two crops of a frame, that of the first folder is used, and within a folder the usual
    name."""
    crops = Crops()
    for folder in folders:
        found: dict[int, os.DirEntry[str]] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if is_leftover(entry.name):
                        continue
                    frame = frame_of(entry.name)
                    if frame is None:
                        crops.unknown.append(entry.name)
                    elif frame not in found:
                        found[frame] = entry
                    else:
                        usual = entry.name == crop_name(frame)
                        crops.duplicates.append(found[frame].name if usual else entry.name)
                        found[frame] = entry if usual else found[frame]
        except OSError as error:
            if is_machine_error(error):
                raise
            crops.unreadable_folders.append(f"{folder.parent.name}/{folder.name} ({error.strerror})")
        crops.duplicates += [entry.name for frame, entry in found.items() if frame in crops.files]
        crops.files = found | crops.files
    crops.files = dict(sorted(crops.files.items()))
    return crops


def has_usable(folders: tuple[Path, ...]) -> bool:
    """Whether a video has a usable crop."""
    return next(read_crops(list_crops(folders), CropReport()), None) is not None


def read_crops(crops: Crops, report: CropReport) -> Iterator[tuple[str, bytes]]:
    """Yields (usual name, bytes) of every usable crop; what was found is added to `report`."""
    for frame, entry in crops.files.items():
        data = read_crop(entry.path)
        shape = jpeg_shape(data)
        if shape is None or _is_rotated(data):
            try:
                data = as_crop(data) if shape or not data.startswith(_START) else b""
            except ImageError:
                data = b""
            shape = jpeg_shape(data)
            if shape is not None:
                report.converted.append(entry.name)
        if shape is None:
            report.unreadable[frame] = entry.name
            continue
        height, width, channels = shape
        if height != CROP_SIDE or width != CROP_SIDE:
            report.resized.append(entry.name)
        if channels != 3:
            report.not_rgb.append(entry.name)
        report.frames.append(frame)
        yield crop_name(frame), data


def is_usable(entry: "os.DirEntry[str]") -> bool:
    """Whether a file is a crop that `read_crops` yields."""
    return next(read_crops(Crops({1: entry}), CropReport()), None) is not None


def _is_rotated(data: bytes) -> bool:
    """Whether a JPEG's Exif data, which come first, rotate or mirror it."""
    if data.find(b"Exif\0\0", 0, 64) < 0:
        return False
    try:
        return is_rotated(data)
    except ImageError:
        return False


def read_crop(path: str) -> bytes:
    """A file's bytes, or none where it cannot be read. It uses system calls, since a file object costs as much again.

    Raises OSError for an error of the machine.
    """
    try:
        descriptor = open_file(path)
        try:
            data = b""
            while piece := os.read(descriptor, 2**16):
                data = data + piece if data else piece
                if len(piece) < 2**16:
                    break
            return data
        finally:
            os.close(descriptor)
    except OSError as error:
        if is_machine_error(error):
            error.filename = path
            raise
        return b""


def jpeg_shape(data: bytes | bytearray) -> tuple[int, int, int] | None:
    """(height, width, channels) of a JPEG with the start, end and size of a usable image, else None.

    It follows the markers up to the size (ITU T.81, B.1 and B.2.2) and decodes nothing.
    """
    if data[:2] != _START or _END not in data[-64:]:
        return None
    position, last = 2, len(data) - 10
    while position < last:
        marker = bytes(data[position : position + 2])
        if marker in _FRAMES:
            bits, height, width, channels = unpack_from(">BHHB", data, position + 4)
            usable = bits == 8 and height in CROP_SIDES and width in CROP_SIDES and channels in CHANNELS
            return (height, width, channels) if usable else None
        if marker == b"\xff\xff":  # a fill byte
            position += 1
        elif marker[0] != 0xFF or 0xD0 <= marker[1] <= 0xDA:  # no marker, or one that comes after the size only
            return None
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


def crop_problems(name: str, crops: Crops, report: CropReport, whole: int = 0) -> Iterator[Problem]:
    """The reports about a video's crops; `whole` is its number of frames, 0 where that is unknown."""
    if crops.unreadable_folders:
        yield Problem("unreadable folder", name, shorten(crops.unreadable_folders), READ_RIGHT)
    if report.unreadable:
        detail = f"{len(report.unreadable)} unreadable: {shorten([*report.unreadable.values()])}"
        yield Problem("unreadable crops", name, detail, "Unpack the crops again; until then these frames have none.")
    unknown = [stranger for stranger in crops.unknown if not _ZERO.fullmatch(stranger)]
    if len(unknown) < len(crops.unknown):
        remedy = "Frames count from 1: if this video's crops count from 0, rename them and run prepare again."
        yield Problem("crop of frame 0", name, "a crop is numbered 0, and is ignored", remedy)
    if unknown:
        detail = f"{len(unknown)} files are not named like 00001.jpg: {shorten(unknown)}"
        yield Problem("unknown files", name, detail, "None needed: they are ignored.")
    if crops.duplicates:
        detail = f"{len(crops.duplicates)} frames have more than one crop: {shorten(crops.duplicates)}"
        yield Problem("duplicate crops", name, detail, "None needed: the crop in the first root, by name, is used.")
    if report.resized:
        detail = f"{len(report.resized)} are not {CROP_SIDE} x {CROP_SIDE} pixels: {shorten(report.resized)}"
        yield Problem("crops of another size", name, detail, "None needed: they are resized when they are read.")
    if report.not_rgb:
        detail = f"{len(report.not_rgb)} are grey or CMYK: {shorten(report.not_rgb)}"
        yield Problem("crops in other colours", name, detail, "None needed: they are read as RGB.")
    if report.converted:
        detail = f"{len(report.converted)} are not an upright JPEG: {shorten(report.converted)}"
        yield Problem("crops in another format", name, detail, "None needed: they are read, and stored as JPEG.")
    yield from _ends(name, report.frames, whole)
    yield from _gaps(name, report.frames)


def _ends(name: str, frames: list[int], whole: int) -> Iterator[Problem]:
    """Reports crops that start late or end early, as where unpacking stopped."""
    if len(frames) < _FEW:
        return
    ends, most = [], max(_MOST_GAPS * whole, _LEAST_MISSED)
    if whole and frames[0] - 1 > most:
        ends.append(f"begin at frame {frames[0]}")
    if whole - frames[-1] > most:
        ends.append(f"end at frame {frames[-1]}")
    if ends:
        remedy = "None needed where the video shows no face; else unpack the crops again."
        yield Problem("crops of part of the video", name, f"crops {' and '.join(ends)} of {whole}", remedy)


def _gaps(name: str, frames: list[int]) -> Iterator[Problem]:
    if not frames:
        return
    span = frames[-1] - frames[0] + 1
    if span - len(frames) > _MOST_GAPS * span:
        longest = max(range(1, len(frames)), key=lambda i: frames[i] - frames[i - 1])
        detail = (
            f"{span - len(frames)} of the frames {frames[0]} to {frames[-1]} have no crop, at most from "
            f"{frames[longest - 1] + 1} to {frames[longest] - 1}"
        )
        yield Problem(
            "gaps in the crops", name, detail, "None needed where the video shows no face; else unpack the crops again."
        )
