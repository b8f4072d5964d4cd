"""Detects faces in every k-th frame of a video, with five landmarks and the look of each.

If the number of faces changes from one such frame to the next, the frames between them are searched too.

The detector is MTCNN (Zhang et al., IEEE SPL 23(10), 2016) as facenet-pytorch ships it, weights included.

Shapes: h x w pixels.
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
from abaw_expr.faces.frames import read_frames, upright, upright_size

_SHORT_SIDE = 360
"""Pixels of the shorter side to which frames are reduced before detection."""
_LEAST_FACE = 0.1
"""The smallest face that is detected, as a fraction of the frame's shorter side."""
_THRESHOLDS = (0.6, 0.6, 0.5)
"""Least scores of the detector's three stages. The usual last two are 0.7; but averted faces score lower, and tracking
keeps a doubtful one only beside sure ones."""
_PYRAMID = 0.8
"""The scale from one level of the image pyramid to the next. At the usual 0.709 some faces fall between two levels: of
300 hard ones 5 more were missed."""
_BATCH, _WINDOW = 16, 80
"""Frames per batch of the detector, and frames that are held in memory."""


class Face(NamedTuple):
    """One face in one image, in pixels of that image."""

    box: NDArray[np.float32]
    """[4]: left, top, right, bottom."""
    score: float
    """The detector's score, up to 1."""
    points: NDArray[np.float32]
    """[5, 2]: eyes, nose, corners of the mouth, left to right."""


class _Frame(NamedTuple):
    number: int
    pixels: NDArray[np.uint8]
    """[h, w, 3], reduced."""
    scale: float
    """The reduced size divided by the video's."""
    size: tuple[int, int]
    """Width and height in the video, upright."""
    scheduled: bool
    """Whether it is searched in any case."""


def detect(path: Path, every: int, on_frame: Callable[[], object] = lambda: None) -> Detections:
    """Detects faces in every `every`-th frame of a video and in the last; `on_frame` is called at every frame.

    Raises av.FFmpegError for a file that is not a readable video.
    """
    found: list[tuple[int, Face, NDArray[np.float32]]] = []
    last, size = 0, (0, 0)
    for frame, faces in _detect_frames(_frames(path, every, on_frame)):
        last, size = max(last, frame.number), frame.size
        image = Image.fromarray(frame.pixels)
        for box, score, points in faces:
            face = Face(box / frame.scale, score, points / frame.scale)
            found.append((frame.number, face, _look(crop(image, points))))
    found.sort(key=lambda one: one[0])
    return Detections(
        frame=np.array([frame for frame, _, _ in found], np.int32),
        box=np.array([face.box for _, face, _ in found], np.float32).reshape(-1, 4),
        score=np.array([face.score for _, face, _ in found], np.float32),
        points=np.array([face.points for _, face, _ in found], np.float32).reshape(-1, 5, 2),
        look=np.array([look for _, _, look in found], np.float32).reshape(-1, LOOK * LOOK * 3),
        every=every,
        frame_count=last,
        width=size[0],
        height=size[1],
    )


def find_faces(images: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
    """The faces of images [h, w, 3] of one size, by image."""
    network = _mtcnn(max(12, round(_LEAST_FACE * min(images[0].shape[:2]))))  # its first stage reads 12 pixels
    with _single_thread():
        rows = zip(*network.detect(np.stack(images), landmarks=True), strict=True)
    return [[] if boxes is None else list(map(_face, boxes, scores, points)) for boxes, scores, points in rows]


@contextmanager
def _single_thread() -> Iterator[None]:
    """Limits torch to one thread: on small tensors, threads wait for each other longer than they work."""
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
    return MTCNN(keep_all=True, min_face_size=least, thresholds=list(_THRESHOLDS), factor=_PYRAMID, device=device)


def _face(box: np.ndarray, score: float, points: np.ndarray) -> Face:
    return Face(box.astype(np.float32), float(score), points.astype(np.float32))


def _look(face: Image.Image) -> NDArray[np.float32]:
    small = face.reduce(CROP_SIDE // LOOK)
    return np.asarray(small, np.float32).ravel() / np.float32(255)


def _detect_frames(frames: Iterator[_Frame]) -> Iterator[tuple[_Frame, list[Face]]]:
    """The frames that are searched, with their faces: the scheduled ones of each window first, then those between
    them."""
    before, between = 0, list[_Frame]()
    while window := list(islice(frames, _WINDOW)):
        scheduled = [frame for frame in window if frame.scheduled]
        faces = {frame.number: found for frame, found in zip(scheduled, _find(scheduled), strict=True)}
        more: list[_Frame] = []
        for frame in window:
            between.append(frame)
            if frame.scheduled:
                now = sum(face.score >= SURE for face in faces[frame.number])
                more += between[:-1] if now != before else []
                before, between = now, []
        yield from ((frame, faces[frame.number]) for frame in scheduled)
        yield from zip(more, _find(more), strict=True)


def _find(frames: Sequence[_Frame]) -> Iterator[list[Face]]:
    """The faces of each frame; frames of one size are searched in batches."""
    for _, alike in groupby((frame.pixels for frame in frames), key=np.shape):
        while batch := list(islice(alike, _BATCH)):
            yield from find_faces(batch)


def _frames(path: Path, every: int, on_frame: Callable[[], object]) -> Iterator[_Frame]:
    """All frames of a video, the last one scheduled."""
    held: _Frame | None = None
    for number, decoded in read_frames(path):
        on_frame()
        if held is not None:
            yield held
        scale = min(1.0, _SHORT_SIDE / min(decoded.width, decoded.height))
        scheduled = (number - 1) % every == 0
        held = _Frame(number, upright(decoded, scale), scale, upright_size(decoded), scheduled)
    if held is not None:
        yield held._replace(scheduled=True)
