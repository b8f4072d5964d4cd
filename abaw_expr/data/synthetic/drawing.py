"""Draws the faces of the synthetic corpus.

A face is a few polygons whose mouth, brows and eyes follow a *look*, seven numbers of which 0 is a face at rest. Each
person has their own proportions, colours, resting look, pose and light. No real face is involved; the corpus shows that
the pipeline learns, and nothing about people.

Shapes: T frames, s segments, p points of a polygon.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from abaw_expr.data.media.images import CROP_SIDE

# The difficulty of the faces. Larger values lower every class's F1.
_LOOK_SPREAD = 0.08
"""Standard deviation of a segment's look around its class's (units of the table below)."""
_REST_SPREAD = 0.03
"""Standard deviation of a person's resting look around the mean person's."""
_INTENSITY = (0.9, 1.2)
"""Range of the factor by which a segment shows its class's look."""
_FLICKER = 0.06
"""Standard deviation of the look within a segment, as it changes over half a second."""
_TALKING = 0.12
"""How far speech opens the mouth beyond the look."""
_PIXEL_NOISE = 4.0
"""Standard deviation of the camera's noise, grey levels of 255."""
_TRANSITION = 0.3
"""Seconds from one expression to the next."""

# One row a class, in the order of tasks.EXPR. Fear and Sadness look nearly alike on purpose (their voices do not);
# Happiness and Surprise look like nothing else (their voices are nearly alike).
#   mouth: corners up, opening, width; brows: height, inner ends up; eyes: opening; nose: wrinkles
CLASS_LOOKS = np.array(
    [
        (0.00, 0.00, 0.0, 0.0, 0.0, 0.0, 0.0),  # Neutral
        (-0.45, 0.05, 0.5, -0.8, -1.1, 0.0, 0.2),  # Anger
        (-0.45, 0.40, -0.3, -0.3, -0.3, -0.7, 1.2),  # Disgust
        (-0.85, 0.25, 0.0, 0.5, 0.9, 0.2, 0.0),  # Fear
        (1.00, 0.40, 0.6, 0.1, 0.0, -0.4, 0.0),  # Happiness
        (-0.95, 0.20, 0.0, 0.5, 1.0, 0.1, 0.0),  # Sadness
        (0.00, 1.00, -0.5, 1.0, 0.1, 0.8, 0.0),  # Surprise
        (0.50, 0.00, -0.9, 0.7, -0.8, 0.3, 0.0),  # Other
    ]
)

_SCALE = 2  # drawn this much larger, then reduced: smooth edges
_AROUND = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_DISC = np.stack([np.cos(_AROUND), np.sin(_AROUND)], axis=1)
_ACROSS = np.linspace(-1, 1, 9)  # along the mouth, left to right
_BOW = 1 - _ACROSS**2
_GRID_Y, _GRID_X = np.mgrid[-1 : 1 : CROP_SIDE * 1j, -1 : 1 : CROP_SIDE * 1j].astype(np.float32)

_Colour = tuple[int, int, int]
_Shape = tuple[np.ndarray, _Colour]
"""A polygon, [p, 2] in face units (x right, y down; the crop spans -1 to 1 in both), and its fill."""


class DrawnVideo(NamedTuple):
    """One person's video, and what it shows."""

    frames: Iterator[np.ndarray]
    """T frames, uint8 [112, 112, 3] each, drawn as they are taken."""
    looks: np.ndarray
    """What annotators see in each frame, [T, 7]: the look of its segment in this face, with soft transitions; flicker
    and speech, which the frames show too, are left out."""


@dataclass(frozen=True)
class _Person:
    """What is constant in a video: proportions, colours, resting look [7] and light."""

    skin: _Colour
    hair: _Colour
    iris: _Colour
    lips: _Colour
    room: _Colour
    width: float
    jaw: float
    hairline: float
    eye_distance: float
    eye_size: float
    mouth_height: float
    brow_thickness: float
    nose_length: float
    glasses: bool
    rest: np.ndarray
    gain: float
    light: tuple[float, float]


def _random_person(rng: np.random.Generator) -> _Person:
    """A new person in a new room."""
    skin = np.array([236, 196, 170]) * rng.uniform(0.5, 1.05) * rng.uniform(0.94, 1.06, 3)
    side, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    return _Person(
        skin=_colour(skin),
        hair=_colour(np.array([150, 110, 80]) * rng.uniform(0.15, 1.3)),
        iris=_colour(rng.uniform(20, 110, 3)),
        lips=_colour(skin * [0.86, 0.62, 0.62]),
        room=_colour(rng.uniform(40, 200) * rng.uniform(0.8, 1.2, 3)),
        width=rng.uniform(0.62, 0.78),
        jaw=rng.uniform(0.75, 1.0),
        hairline=rng.uniform(-0.72, -0.5),
        eye_distance=rng.uniform(0.27, 0.36),
        eye_size=rng.uniform(0.85, 1.15),
        mouth_height=rng.uniform(0.46, 0.56),
        brow_thickness=rng.uniform(0.03, 0.06),
        nose_length=rng.uniform(0.2, 0.32),
        glasses=bool(rng.random() < 0.25),
        rest=_REST_SPREAD * rng.standard_normal((CLASS_LOOKS.shape[1],)),
        gain=rng.uniform(0.75, 1.1),
        light=(strength * np.cos(side), strength * np.sin(side)),
    )


def draw_video(classes: list[int], segment: np.ndarray, rate: float, rng: np.random.Generator) -> DrawnVideo:
    """One new person's video.

    `classes` [s] is the class of each segment, `segment` [T] the segment of each frame, `rate` frames a second.
    """
    person = _random_person(rng)
    looks, drawn = _looks(classes, segment, rate, rng)
    # slow head movement: shift x, shift y, rotation, log scale
    poses = wander(len(segment), 4, 1.5 * rate, rng) * [0.05, 0.05, 0.07, 0.05]
    frames = (
        _exposed(_drawn(_shapes(person, look), person.room, pose), person, rng)
        for look, pose in zip(drawn + person.rest, poses, strict=True)
    )
    return DrawnVideo(frames, looks + person.rest)


def wander(frames: int, columns: int, every: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that changes slowly, [frames, columns]: linear interpolation of standard normal knots, one every `every`
    frames."""
    at = np.arange(frames) / every
    left = at.astype(int)
    knots = rng.standard_normal((left.max(initial=0) + 2, columns))
    weight = (at - left)[:, None]
    return knots[left] * (1 - weight) + knots[left + 1] * weight


def _looks(
    classes: list[int], segment: np.ndarray, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The look of every frame without and with flicker and speech, both [T, 7]."""
    intensity = rng.uniform(*_INTENSITY, (len(classes), 1))
    own = CLASS_LOOKS[classes] * intensity + rng.normal(0, _LOOK_SPREAD, (len(classes), CLASS_LOOKS.shape[1]))
    looks = smooth(own[segment], rate)
    drawn = looks + _FLICKER * wander(len(segment), CLASS_LOOKS.shape[1], 0.5 * rate, rng)
    drawn[:, 1] += _TALKING * np.abs(wander(len(segment), 1, 0.15 * rate, rng)[:, 0])
    return looks, drawn


def smooth(values: np.ndarray, rate: float) -> np.ndarray:
    """The moving mean over a transition at `rate` frames a second, [T, columns]; the ends are repeated."""
    width = max(1, round(_TRANSITION * rate))
    padded = np.pad(values, ((width // 2, width - 1 - width // 2), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).mean(axis=-1)


def _drawn(shapes: list[_Shape], room: _Colour, pose: np.ndarray) -> np.ndarray:
    """Shapes in a pose [4] (shift x, shift y, rotation, log scale), painted in their order; uint8 [112, 112, 3]."""
    image = Image.new("RGB", (CROP_SIDE * _SCALE, CROP_SIDE * _SCALE), room)
    pen = ImageDraw.Draw(image)
    points = np.concatenate([points for points, _ in shapes])
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    turned = points @ np.array([[cosine, sine], [-sine, cosine]]) * np.exp(pose[3]) + pose[:2]
    pixels = ((turned + 1) * (CROP_SIDE * _SCALE / 2)).ravel().tolist()
    start = 0
    for polygon, colour in shapes:
        end = start + polygon.size
        pen.polygon(pixels[start:end], fill=colour)
        start = end
    return np.asarray(image.reduce(_SCALE))


def _exposed(image: np.ndarray, person: _Person, rng: np.random.Generator) -> np.ndarray:
    """The image [112, 112, 3] in the room's light (a gain and a gradient from one side), with the camera's noise."""
    light = person.gain * (1 + person.light[0] * _GRID_X + person.light[1] * _GRID_Y)
    noise = rng.standard_normal((CROP_SIDE, CROP_SIDE), dtype=np.float32) * _PIXEL_NOISE
    return np.clip(image * light[..., None] + noise[..., None], 0, 255).astype(np.uint8)


def _shapes(person: _Person, look: np.ndarray) -> list[_Shape]:
    """The whole face for a look [7], in painting order, back to front."""
    corners, opening, wide, brow, tilt, eyes, wrinkle = look.tolist()
    shapes = _head(person) + _nose(person, wrinkle)
    for side in (-1, 1):
        shapes += [*_eye(person, side, eyes), _brow(person, side, brow, tilt)]
    return shapes + _mouth(person, corners, opening, wide)


def _head(person: _Person) -> list[_Shape]:
    """Hair behind, the face with its jaw, and the fringe over the forehead."""
    face = _DISC * [person.width, 0.9] + [0, 0.06]
    face[:, 0] *= np.where(face[:, 1] > 0.2, person.jaw + (1 - person.jaw) * (0.96 - face[:, 1]) / 0.76, 1)
    crown = _DISC * [person.width + 0.06, 0.94]
    fringe = crown[crown[:, 1] < person.hairline]
    return [
        (_DISC * [person.width + 0.1, 0.95] - [0, 0.12], person.hair),
        (face, person.skin),
        (fringe, person.hair),
    ]


def _nose(person: _Person, wrinkle: float) -> list[_Shape]:
    """The nose's shadow, and wrinkles beside its root which grow with `wrinkle`."""
    shadow = _shade(person.skin, 0.8)
    tip = -0.05 + person.nose_length
    shapes: list[_Shape] = [(np.array([(0.0, -0.1), (0.09, tip), (-0.09, tip)]), shadow)]
    depth = 0.04 * max(wrinkle, 0)
    for side in (-1, 1):
        for height in (-0.02, 0.08):
            line = [(0.06, height), (0.19, height - 0.07), (0.19, height - 0.07 + depth), (0.06, height + depth)]
            shapes.append((np.array(line) * [side, 1], _shade(person.skin, 0.6)))
    return shapes


def _eye(person: _Person, side: int, eyes: float) -> list[_Shape]:
    """Glasses' frame if any, the white, and an iris that the lids cover."""
    centre = np.array([side * person.eye_distance, -0.14])
    height = person.eye_size * 0.085 * max(1 + 0.75 * eyes, 0.1)
    radius = person.eye_size * 0.07
    shapes: list[_Shape] = [
        (_DISC * [person.eye_size * 0.155, height + 0.025] + centre, _shade(person.skin, 0.65)),
        (_DISC * [person.eye_size * 0.14, height] + centre, (240, 238, 232)),
        (_DISC * [radius, min(radius, height)] + centre, person.iris),
    ]
    if person.glasses:
        rim = [(_DISC * 0.215 + centre, (25, 25, 30)), (_DISC * 0.195 + centre, _shade(person.skin, 0.95))]
        return rim + shapes
    return shapes


def _brow(person: _Person, side: int, brow: float, tilt: float) -> _Shape:
    """A bar over the eye, raised by `brow`, its inner end raised by `tilt`."""
    height = -0.34 - 0.1 * brow
    inner, outer = height - 0.08 * tilt, height + 0.06 * tilt
    thick = person.brow_thickness
    left, right = person.eye_distance - 0.16, person.eye_distance + 0.17
    bar = [(left, inner - thick), (right, outer - thick / 2), (right, outer + thick / 2), (left, inner + thick)]
    return np.array(bar) * [side, 1], _shade(person.hair, 0.8)


def _mouth(person: _Person, corners: float, opening: float, wide: float) -> list[_Shape]:
    """Lips whose corners rise by `corners`, around an opening that shows teeth above and the dark below."""
    across = _ACROSS * 0.27 * (1 + 0.3 * wide)
    middle = person.mouth_height + 0.13 * corners * (_BOW - 0.5)
    gap = 0.26 * max(opening, 0) * _BOW
    lip = 0.02 + 0.035 * _BOW
    upper, lower = middle - 0.35 * gap, middle + 0.65 * gap
    return [
        (_band(across, upper - lip, lower + lip), person.lips),
        (_band(across * 0.93, upper, lower), (50, 18, 22)),
        (_band(across * 0.8, upper, upper + 0.3 * gap), (232, 228, 220)),
    ]


def _band(across: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The outline of the area between two curves [p], [2 p, 2]."""
    return np.concatenate([np.stack([across, upper], axis=1), np.stack([across, lower], axis=1)[::-1]])


def _shade(colour: _Colour, factor: float) -> _Colour:
    return _colour(np.array(colour) * factor)


def _colour(values: np.ndarray) -> _Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue
