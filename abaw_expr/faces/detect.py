"""Video -> detections: every face in every k-th picture, with its five points and what it looks like.

Where a face comes or goes from one such picture to the next, those between are searched too.

The detector is MTCNN (Zhang et al., IEEE SPL 23(10), 2016) as facenet-pytorch ships it, weights included.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.faces.align import crop
from abaw_expr.faces.detections import LOOK, SURE, Detections
from abaw_expr.faces.frames import read_pictures, upright, upright_size

SHORT_SIDE = 360
"""Pictures are made this small, in pixels of their shorter side, before faces are looked for."""
LEAST_FACE = 0.1
"""The smallest face that is looked for, as a share of the picture's shorter side."""
THRESHOLDS = (0.6, 0.6, 0.5)
"""Least scores of the detector's three stages. The usual last two are 0.7: a face turned away scores less, and tracking
keeps a doubtful one only beside sure ones."""
PYRAMID = 0.8
"""The size of a picture to that of the next larger one in which faces are looked for. With the usual 0.709 some faces
fall between two sizes: of 300 hard ones 5 more were missed."""
BATCH, WINDOW = 16, 80
"""Pictures that the detector sees at once, and that are held at once."""


class Face(NamedTuple):
    """One face in one picture, in pixels of that picture."""

    box: NDArray[np.float32]
    """[4]: left, top, right, bottom."""
    score: float
    """How sure the detector is, up to 1."""
    points: NDArray[np.float32]
    """[5, 2]: eyes, nose, corners of the mouth, left to right."""


class _Picture(NamedTuple):
    frame: int
    pixels: NDArray[np.uint8]
    """[height, width, 3], made smaller."""
    scale: float
    """Its pixels to a pixel of the video."""
    size: tuple[int, int]
    """Width and height in the video, upright."""
    due: bool
    """Whether it is searched in any case."""


def detect(path: Path, every: int, tell: Callable[[], object] = lambda: None) -> Detections:
    """Looks for faces in every `every`-th picture of a video and in the last; `tell` is called at every picture.

    Raises av.FFmpegError for a file that is not a readable video.
    """
    found: list[tuple[int, Face, NDArray[np.float32]]] = []
    last, size = 0, (0, 0)
    for picture, faces in _searched(_pictures(path, every, tell)):
        last, size = max(last, picture.frame), picture.size
        image = Image.fromarray(picture.pixels)
        for box, score, points in faces:
            face = Face(box / picture.scale, score, points / picture.scale)
            found.append((picture.frame, face, _look(crop(image, points))))
    found.sort(key=lambda one: one[0])
    return Detections(
        frame=np.array([frame for frame, _, _ in found], np.int32),
        box=np.array([face.box for _, face, _ in found], np.float32).reshape(-1, 4),
        score=np.array([face.score for _, face, _ in found], np.float32),
        points=np.array([face.points for _, face, _ in found], np.float32).reshape(-1, 5, 2),
        look=np.array([look for _, _, look in found], np.float32).reshape(-1, LOOK * LOOK * 3),
        every=every,
        pictures=last,
        width=size[0],
        height=size[1],
    )


def find_faces(pictures: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
    """Every face in pictures [height, width, 3] of one size, by picture."""
    network = _mtcnn(max(12, round(LEAST_FACE * min(pictures[0].shape[:2]))))  # its first stage sees 12 pixels
    with _one_thread():
        rows = zip(*network.detect(np.stack(pictures), landmarks=True), strict=True)
    return [[] if boxes is None else list(map(_face, boxes, scores, points)) for boxes, scores, points in rows]


@contextmanager
def _one_thread() -> Iterator[None]:
    """For work on small tensors, where threads wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _mtcnn(least: int) -> Any:
    from facenet_pytorch.models.mtcnn import MTCNN

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return MTCNN(keep_all=True, min_face_size=least, thresholds=list(THRESHOLDS), factor=PYRAMID, device=device)


def _face(box: np.ndarray, score: float, points: np.ndarray) -> Face:
    return Face(box.astype(np.float32), float(score), points.astype(np.float32))


def _look(face: Image.Image) -> NDArray[np.float32]:
    small = face.reduce(CROP_SIDE // LOOK)
    return np.asarray(small, np.float32).ravel() / np.float32(255)


def _searched(pictures: Iterator[_Picture]) -> Iterator[tuple[_Picture, list[Face]]]:
    """The pictures that are searched, with their faces: those due first, then those between."""
    before, between = 0, list[_Picture]()
    while window := list(islice(pictures, WINDOW)):
        due = [picture for picture in window if picture.due]
        faces = {picture.frame: found for picture, found in zip(due, _find(due), strict=True)}
        more: list[_Picture] = []
        for picture in window:
            between.append(picture)
            if picture.due:
                now = sum(face.score >= SURE for face in faces[picture.frame])
                more += between[:-1] if now != before else []
                before, between = now, []
        yield from ((picture, faces[picture.frame]) for picture in due)
        yield from zip(more, _find(more), strict=True)


def _find(pictures: Sequence[_Picture]) -> Iterator[list[Face]]:
    """The faces of each picture, a few of one size searched at once."""
    for _, alike in groupby((picture.pixels for picture in pictures), key=np.shape):
        while batch := list(islice(alike, BATCH)):
            yield from find_faces(batch)


def _pictures(path: Path, every: int, tell: Callable[[], object]) -> Iterator[_Picture]:
    """All pictures of a video, the last one due."""
    held: _Picture | None = None
    for number, frame in read_pictures(path):
        tell()
        if held is not None:
            yield held
        scale = min(1.0, SHORT_SIDE / min(frame.width, frame.height))
        held = _Picture(number, upright(frame, scale), scale, upright_size(frame), due=(number - 1) % every == 0)
    if held is not None:
        yield held._replace(due=True)
