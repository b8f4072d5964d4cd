"""Writes a video again with its audio, upright, with a box around every face and its prediction.

Shapes: T frames of a video.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from heapq import merge
from operator import itemgetter
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from abaw_expr.data.media.decode import SAMPLE_RATE, Audio
from abaw_expr.data.media.sources import read_source
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import VideoError
from abaw_expr.faces.choose import CHOICE_SUFFIXES, people_of
from abaw_expr.faces.extract import Faces
from abaw_expr.faces.frames import read_frames, upright, upright_size
from abaw_expr.files import atomic
from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.outputs.style import text_colour

CLOCK = Fraction(1, 90_000)
"""Seconds of a frame's time stamp: fine enough for any rate."""
_PIECE = 1024
"""Samples of audio that are written at a time."""

_Positions = Mapping[int, NDArray[np.float32]]
"""A person's box and five landmarks [14] by frame."""
_Timed = Iterator[tuple[float, av.VideoFrame | av.AudioFrame]]
"""Frames or pieces of audio with their seconds."""


def annotate(
    video: Path, faces: Faces, predictions: Sequence[PersonPrediction], path: Path, on_progress: OnProgress
) -> None:
    """Writes the annotated video (MP4: H.264, AAC), whole or not at all; frames and audio keep their times.

    Raises VideoError where no frame can be decoded.
    """
    people = people_of(faces.tracks, faces.choices)
    positions = {video.stem + CHOICE_SUFFIXES[person]: at for person, at in people.items()}
    first = next((upright_size(frame) for _, frame in read_frames(video)), None)
    if first is None:
        raise VideoError("holds no frame that can be decoded", path=video)
    size = (max(2, first[0] // 2 * 2), max(2, first[1] // 2 * 2))  # H.264 stores colour for pairs of pixels
    source = read_source(video)
    audio = source.audio if source.audio is not None and len(source.audio.samples) else None
    people_marked = [(prediction, positions.get(prediction.name, {})) for prediction in predictions]
    with (
        atomic(path) as temporary,
        open(temporary, "wb") as file,  # its name could give another format or protocol
        av.open(file, "w", format="mp4") as out,
    ):
        video_stream = out.add_stream("libx264", options={"preset": "veryfast", "crf": "23"})
        video_stream.width, video_stream.height, video_stream.pix_fmt, video_stream.codec_context.time_base = (
            *size,
            "yuv420p",
            CLOCK,
        )
        audio_stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if audio is not None else None
        frames = _marked_frames(video, source.times, size, people_marked, on_progress)
        for _, frame in merge(frames, _pieces(audio), key=itemgetter(0)):
            if isinstance(frame, av.VideoFrame):
                out.mux(video_stream.encode(frame))
            elif audio_stream is not None:
                out.mux(audio_stream.encode(frame))
        out.mux(video_stream.encode())
        if audio_stream is not None:
            out.mux(audio_stream.encode())


def _marked_frames(
    video: Path,
    times: NDArray[np.float64],
    size: tuple[int, int],
    people: Sequence[tuple[PersonPrediction, _Positions]],
    on_progress: OnProgress,
) -> _Timed:
    """Every frame with marks, at times [T]; in a video whose size changes, all frames get the first one's size."""
    stamp = -1
    for number, frame in read_frames(video):
        image = Image.fromarray(upright(frame))
        scale = (1.0, 1.0)
        if max(image.width - size[0], image.height - size[1]) > 1 or min(image.width, image.height) < min(size):
            scale = (size[0] / image.width, size[1] / image.height)
            image = image.resize(size, Image.Resampling.BICUBIC)
        image = image.crop((0, 0, *size))
        _mark(image, number, people, scale)
        time = float(times[min(number, len(times)) - 1])
        stamp = max(round(time / CLOCK), stamp + 1)  # two frames may have the same time
        marked = av.VideoFrame.from_image(image)
        marked.pts, marked.time_base = stamp, CLOCK
        yield time, marked
        on_progress(number, len(times))


def _pieces(audio: Audio | None) -> _Timed:
    """The audio in short pieces, as the network reads it: mono at 16 kHz on the clock of the frames."""
    samples = np.zeros(0, np.float32) if audio is None else audio.samples
    for start in range(0, len(samples), _PIECE):
        piece = av.AudioFrame.from_ndarray(samples[None, start : start + _PIECE], format="fltp", layout="mono")
        piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield start / SAMPLE_RATE, piece


def _mark(
    image: Image.Image, number: int, people: Sequence[tuple[PersonPrediction, _Positions]], scale: tuple[float, float]
) -> None:
    """Draws the prediction for everyone, with a box where the face is tracked in the frame, else in a corner.

    `scale` is the width and the height of the image divided by those of the frame that `people` refer to.
    """
    pen = ImageDraw.Draw(image)
    unit = max(1, min(image.size) // 120)
    for line, (prediction, positions) in enumerate(people, start=1):
        caption, colour = prediction.caption(min(number, len(prediction.p)) - 1)
        text = f" {caption} " if number in positions else f" {caption} (no face) "
        font, width = _fitting_font(text, 8 * unit, image.width)
        corner = (0.0, 10.0 * unit * line)
        if number in positions:
            left, top, right, bottom = (positions[number][:4] * np.array([*scale, *scale], np.float32)).tolist()
            pen.rectangle((left, top, right, bottom), outline=colour, width=unit)
            corner = (max(min(left, image.width - width), 0.0), max(top, 10.0 * unit))
        pen.rectangle(pen.textbbox(corner, text, font, anchor="lb"), fill=colour)
        pen.text(corner, text, text_colour(colour), font, anchor="lb")


def _fitting_font(text: str, size: int, width: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, float]:
    """The font of this size, or of the largest smaller one in which the text is no wider; and the width of the text."""
    while (length := _font(size).getlength(text)) > width and size > 1:
        size -= 1
    return _font(size), length


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
