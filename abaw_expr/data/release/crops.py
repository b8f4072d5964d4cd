"""A video's crops: which files they are, and whether a file is a picture that training can use."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack_from

from abaw_expr.data.media.images import CROP_SIDE, SUFFIXES, PictureError, as_crop, is_turned
from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.data.walk import is_leftover
from abaw_expr.errors import of_machine, shorten
from abaw_expr.files import open_file
from abaw_expr.tasks.names import crop_name

SIDES = range(16, 4097)
"""Pixels of a usable picture's sides: no face is seen in fewer, and a damaged header claims more."""
CHANNELS = (1, 3, 4)
"""Of grey, colour and CMYK pictures, all of which are decoded as RGB."""
MOST_GAPS = 0.1
"""The share of frames between a video's first and last crop that may lack one without being told; 0.02 is usual."""
LEAST_MISSED = 10
"""Frames before a video's first or after its last crop that may lack one in any case."""
FEW = 3
"""Crops of a video of which it is told where they begin and end; fewer are of somebody seen for a moment."""
_ENDINGS = "|".join(suffix.removeprefix(".") for suffix in SUFFIXES)
_NAME = re.compile(rf"0*([1-9][0-9]{{0,6}})\.({_ENDINGS})", re.IGNORECASE)
"""A frame's number, counted from 1, and no number so long that it is none, such as a date."""
_ZERO = re.compile(rf"0+\.({_ENDINGS})", re.IGNORECASE)
_FRAMES = {b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"}
"""Markers before a picture's size: baseline, extended and progressive, which every decoder knows."""
_START, _END = b"\xff\xd8", b"\xff\xd9"


@dataclass
class Crops:
    """The files of a video's crops, and what was noticed on the way."""

    files: dict[int, os.DirEntry[str]] = field(default_factory=dict)
    """By frame, ascending."""
    strangers: list[str] = field(default_factory=list)
    """Names of files that are no crops."""
    doubled: list[str] = field(default_factory=list)
    """Names of crops whose frame has one already."""
    closed: list[str] = field(default_factory=list)
    """Folders that cannot be read, each with the reason."""


@dataclass
class Seen:
    """What the files turned out to be."""

    frames: list[int] = field(default_factory=list)
    """Those with a usable crop, in the order in which they were read."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Names of unusable files by frame."""
    sized: list[str] = field(default_factory=list)
    """Not `CROP_SIDE` wide and high."""
    colourless: list[str] = field(default_factory=list)
    """Grey or CMYK."""
    converted: list[str] = field(default_factory=list)
    """No JPEG, or one to be turned when it is shown; made one that is upright."""


def frame_of(name: str) -> int | None:
    """The frame that a file of this name is the crop of; None where it is no crop's."""
    known = _NAME.fullmatch(name)
    return None if known is None else int(known[1])


def list_crops(folders: tuple[Path, ...]) -> Crops:
    """A video's crops. Where two roots hold the same frame the first root wins, in a folder the usual name."""
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
                        crops.strangers.append(entry.name)
                    elif frame not in found:
                        found[frame] = entry
                    else:
                        usual = entry.name == crop_name(frame)
                        crops.doubled.append(found[frame].name if usual else entry.name)
                        found[frame] = entry if usual else found[frame]
        except OSError as error:
            if of_machine(error):
                raise
            crops.closed.append(f"{folder.parent.name}/{folder.name} ({error.strerror})")
        crops.doubled += [entry.name for frame, entry in found.items() if frame in crops.files]
        crops.files = found | crops.files
    crops.files = dict(sorted(crops.files.items()))
    return crops


def has_usable(folders: tuple[Path, ...]) -> bool:
    """Whether a video has a crop that can be used."""
    return next(read_crops(list_crops(folders), Seen()), None) is not None


def read_crops(crops: Crops, seen: Seen) -> Iterator[tuple[str, bytes]]:
    """(usual name, bytes) of every crop that can be used; what they and the others are goes to `seen`."""
    for frame, entry in crops.files.items():
        data = read_crop(entry.path)
        shape = jpeg_shape(data)
        if shape is None or _turned(data):
            try:
                data = as_crop(data) if shape or not data.startswith(_START) else b""
            except PictureError:
                data = b""
            shape = jpeg_shape(data)
            if shape is not None:
                seen.converted.append(entry.name)
        if shape is None:
            seen.unreadable[frame] = entry.name
            continue
        height, width, channels = shape
        if height != CROP_SIDE or width != CROP_SIDE:
            seen.sized.append(entry.name)
        if channels != 3:
            seen.colourless.append(entry.name)
        seen.frames.append(frame)
        yield crop_name(frame), data


def is_usable(entry: "os.DirEntry[str]") -> bool:
    """Whether a file is a crop that `read_crops` gives."""
    return next(read_crops(Crops({1: entry}), Seen()), None) is not None


def _turned(data: bytes) -> bool:
    """Whether a JPEG says that it is to be turned or mirrored (Exif, which comes first)."""
    if data.find(b"Exif\0\0", 0, 64) < 0:
        return False
    try:
        return is_turned(data)
    except PictureError:
        return False


def read_crop(path: str) -> bytes:
    """A file's bytes, none where it cannot be read; by plain system calls, since a file object costs as much again.

    Raises OSError where the machine is to blame.
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
        if of_machine(error):
            error.filename = path
            raise
        return b""


def jpeg_shape(data: bytes | bytearray) -> tuple[int, int, int] | None:
    """(height, width, channels) of a JPEG that begins, ends and measures as a usable picture does, else None.

    Its markers are followed up to the size (ITU T.81, B.1 and B.2.2); nothing is decoded.
    """
    if data[:2] != _START or _END not in data[-64:]:
        return None
    place, last = 2, len(data) - 10
    while place < last:
        marker = bytes(data[place : place + 2])
        if marker in _FRAMES:
            bits, height, width, channels = unpack_from(">BHHB", data, place + 4)
            usable = bits == 8 and height in SIDES and width in SIDES and channels in CHANNELS
            return (height, width, channels) if usable else None
        if marker == b"\xff\xff":  # a fill byte
            place += 1
        elif marker[0] != 0xFF or 0xD0 <= marker[1] <= 0xDA:  # no marker, or one that comes after the size only
            return None
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def crop_problems(name: str, crops: Crops, seen: Seen, whole: int = 0) -> Iterator[Problem]:
    """What is to be told about a video's crops; `whole` is how many frames it has, 0 where that is unknown."""
    if crops.closed:
        yield Problem("unreadable folder", name, shorten(crops.closed), READ_RIGHT)
    if seen.unreadable:
        detail = f"{len(seen.unreadable)} unreadable: {shorten([*seen.unreadable.values()])}"
        yield Problem("unreadable crops", name, detail, "Unpack the crops again; until then these frames have none.")
    strangers = [stranger for stranger in crops.strangers if not _ZERO.fullmatch(stranger)]
    if len(strangers) < len(crops.strangers):
        remedy = "Frames count from 1: if this video's do from 0, rename its crops and run prepare again."
        yield Problem("crop of frame 0", name, "a crop is numbered 0, and left out", remedy)
    if strangers:
        detail = f"{len(strangers)} files are not named like 00001.jpg: {shorten(strangers)}"
        yield Problem("unknown files", name, detail, "None needed: they are left out.")
    if crops.doubled:
        detail = f"{len(crops.doubled)} frames have more than one crop: {shorten(crops.doubled)}"
        yield Problem("crops twice", name, detail, "None needed: that of the first root, by name, is taken.")
    if seen.sized:
        detail = f"{len(seen.sized)} are not {CROP_SIDE} x {CROP_SIDE} pixels: {shorten(seen.sized)}"
        yield Problem("crops of another size", name, detail, "None needed: they are resized when they are read.")
    if seen.colourless:
        detail = f"{len(seen.colourless)} are grey or CMYK: {shorten(seen.colourless)}"
        yield Problem("crops in other colours", name, detail, "None needed: they are read as RGB.")
    if seen.converted:
        detail = f"{len(seen.converted)} are no upright JPEG: {shorten(seen.converted)}"
        yield Problem("crops in another format", name, detail, "None needed: they are read, and kept as JPEG.")
    yield from _ends(name, seen.frames, whole)
    yield from _gaps(name, seen.frames)


def _ends(name: str, frames: list[int], whole: int) -> Iterator[Problem]:
    """Crops that begin late or end early, as where unpacking stopped."""
    if len(frames) < FEW:
        return
    told, most = [], max(MOST_GAPS * whole, LEAST_MISSED)
    if whole and frames[0] - 1 > most:
        told.append(f"begin at frame {frames[0]}")
    if whole - frames[-1] > most:
        told.append(f"end at frame {frames[-1]}")
    if told:
        remedy = "None needed where no face is seen; else unpack them again."
        yield Problem("crops of a part", name, f"crops {' and '.join(told)} of {whole}", remedy)


def _gaps(name: str, frames: list[int]) -> Iterator[Problem]:
    if not frames:
        return
    span = frames[-1] - frames[0] + 1
    if span - len(frames) > MOST_GAPS * span:
        longest = max(range(1, len(frames)), key=lambda i: frames[i] - frames[i - 1])
        detail = (
            f"{span - len(frames)} of the frames {frames[0]} to {frames[-1]} have no crop, at most from "
            f"{frames[longest - 1] + 1} to {frames[longest] - 1}"
        )
        yield Problem("gaps in the crops", name, detail, "None needed where no face is seen; else unpack them again.")
