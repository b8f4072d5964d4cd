"""The video again, upright, with a box around every face, the class decided beside it, and its sound."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from heapq import merge
from operator import itemgetter
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from abaw_expr.data.media.decode import SAMPLE_RATE, Sound
from abaw_expr.data.media.sources import read_source
from abaw_expr.errors import VideoError
from abaw_expr.faces.choose import SUFFIXES, people_of
from abaw_expr.faces.extract import Faces
from abaw_expr.faces.frames import read_pictures, upright, upright_size
from abaw_expr.files import atomic
from abaw_expr.infer.answer import Answer
from abaw_expr.infer.timeline import COLOURS

CLOCK = Fraction(1, 90_000)
"""Seconds of a picture's time stamp: fine enough for any rate."""
_PIECE = 1024
"""Samples of sound that are written at once."""

Places = Mapping[int, NDArray[np.float32]]
"""A person's box and five points by frame, [14]."""
Timed = Iterator[tuple[float, av.VideoFrame | av.AudioFrame]]
"""Pictures or pieces of sound with their seconds."""


def annotate(
    video: Path, faces: Faces, answers: Sequence[Answer], path: Path, progress: Callable[[int, int], None]
) -> None:
    """Writes the annotated video (MP4: H.264, AAC), whole or not at all; pictures and sound at their own times."""
    people = people_of(faces.tracks, faces.chosen)
    places = {video.stem + SUFFIXES[person]: at for person, at in people.items()}
    first = next((upright_size(frame) for _, frame in read_pictures(video)), None)
    if first is None:
        raise VideoError("holds no picture that could be shown again", path=video)
    size = (max(2, first[0] // 2 * 2), max(2, first[1] // 2 * 2))  # H.264 has colour for pairs of pixels
    source = read_source(video)
    sound = source.sound if source.sound is not None and len(source.sound.samples) else None
    people_shown = [(answer, places.get(answer.name, {})) for answer in answers]
    with (
        atomic(path) as temporary,
        open(temporary, "wb") as file,  # its name could say another format or protocol
        av.open(file, "w", format="mp4") as out,
    ):
        film = out.add_stream("libx264", options={"preset": "veryfast", "crf": "23"})
        film.width, film.height, film.pix_fmt, film.codec_context.time_base = *size, "yuv420p", CLOCK
        voice = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound is not None else None
        pictures = _pictures(video, source.times, size, people_shown, progress)
        for _, frame in merge(pictures, _pieces(sound), key=itemgetter(0)):
            if isinstance(frame, av.VideoFrame):
                out.mux(film.encode(frame))
            elif voice is not None:
                out.mux(voice.encode(frame))
        out.mux(film.encode())
        if voice is not None:
            out.mux(voice.encode())


def _pictures(
    video: Path,
    times: NDArray[np.float64],
    size: tuple[int, int],
    people: Sequence[tuple[Answer, Places]],
    progress: Callable[[int, int], None],
) -> Timed:
    """Every picture, marked; a film that changes its size keeps that of its first picture."""
    stamp = -1
    for number, frame in read_pictures(video):
        image = Image.fromarray(upright(frame))
        scale = (1.0, 1.0)
        if max(image.width - size[0], image.height - size[1]) > 1 or min(image.width, image.height) < min(size):
            scale = (size[0] / image.width, size[1] / image.height)
            image = image.resize(size, Image.Resampling.BICUBIC)
        image = image.crop((0, 0, *size))
        _mark(image, number, people, scale)
        time = float(times[min(number, len(times)) - 1])
        stamp = max(round(time / CLOCK), stamp + 1)  # two pictures may have one time
        marked = av.VideoFrame.from_image(image)
        marked.pts, marked.time_base = stamp, CLOCK
        yield time, marked
        progress(number, len(times))


def _pieces(sound: Sound | None) -> Timed:
    """The sound in short pieces, as it was judged: one channel of 16 kHz on the pictures' clock."""
    samples = np.zeros(0, np.float32) if sound is None else sound.samples
    for start in range(0, len(samples), _PIECE):
        piece = av.AudioFrame.from_ndarray(samples[None, start : start + _PIECE], format="fltp", layout="mono")
        piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        yield start / SAMPLE_RATE, piece


def _mark(image: Image.Image, number: int, people: Sequence[tuple[Answer, Places]], scale: tuple[float, float]) -> None:
    """A box for everyone whose face is in the picture; of a video without any face, the class in a corner.

    `scale` is the picture's width and height to those in which the places are.
    """
    pen = ImageDraw.Draw(image)
    unit = max(1, min(image.size) // 120)
    font = ImageFont.load_default(8 * unit)
    for answer, places in people:
        row = min(number, len(answer.p)) - 1
        best = int(answer.label[row])
        text, colour = f" {answer.task.columns[best]} {answer.p[row, best]:.0%} ", COLOURS[best]
        corner = (0.0, 10.0 * unit)
        if number in places:
            left, top, right, bottom = (places[number][:4] * np.array([*scale, *scale], np.float32)).tolist()
            pen.rectangle((left, top, right, bottom), outline=colour, width=unit)
            corner = (max(left, 0.0), max(top, corner[1]))
        elif answer.frames.crop.any():
            continue
        pen.rectangle(pen.textbbox(corner, text, font, anchor="lb"), fill=colour)
        pen.text(corner, text, "black", font, anchor="lb")
