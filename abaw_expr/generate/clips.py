"""Generated clips: a face that turns from Neutral to a class, as those of CK+ do, written as a data set of clips.

    clips/<name>/00001.jpg    crops of a face; the comment of each says that it is generated, by what, from which seed
    clips.csv                 a row for each annotated stretch, as `prepare --kind clips` reads them
    provenance.json           what the generator learned from

There is no audio: the clips teach the visual branch only.

Shapes: T frames of a clip, B faces of S x S pixels, C classes, Z the length of an identity.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from abaw_expr.data.datasets.provenance import MARK, PROVENANCE
from abaw_expr.data.media.images import JPEG_QUALITY
from abaw_expr.data.media.sources import NOMINAL_RATE
from abaw_expr.errors import UserError
from abaw_expr.files import atomic
from abaw_expr.generate.sampling import Sampler, codes_of, identity_of
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR
from abaw_expr.version import VERSION

CSV = "clips.csv"
_FOLDER = "clips"
_NEUTRAL = EXPR.columns.index("Neutral")
_ONSET, _APEX = 0.2, 0.6
"""Fractions of a clip at which the class begins to show, and from which on it is held (D)."""
_DRIFT = 0.15
"""The largest angle, in radians, by which an identity turns within a clip: small motion of the face (D)."""
_TURN, _SHIFT = 0.04, 0.03
"""The largest angle, in radians, and the largest shift, as a fraction of half the side, of the head (D)."""
_COLUMNS = ("path", "label", "subject", "split", "start", "end", "name", "provenance")


@dataclass(frozen=True)
class Clip:
    """A clip to generate."""

    seed: int
    subject: int
    """Number of its identity."""
    label: int
    """The class that it turns to; of Neutral it stays neutral."""

    @property
    def name(self) -> str:
        return f"{self.person}-{EXPR.columns[self.label]}"

    @property
    def person(self) -> str:
        return f"generated-{self.seed}-{self.subject:05d}"


def clips_of(sampler: Sampler, count: int, seed: int) -> list[Clip]:
    """The first clips of a seed: every identity shows every class of the generator, one after another."""
    classes = len(sampler.classes)
    return [Clip(seed, number // classes, sampler.classes[number % classes]) for number in range(count)]


def write_clips(
    sampler: Sampler,
    out: Path,
    count: int,
    seconds: float = 2.0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes a data set of clips into a new folder, whole or not at all.

    `on_progress(clips done, clips in all)`. Raises UserError where the folder exists.
    """
    if out.exists():
        raise UserError("exists already", path=out, remedy="Name a new folder.")
    clips, frames = clips_of(sampler, count, seed), max(round(seconds * NOMINAL_RATE), 2)
    with atomic(out) as temporary:
        for number, clip in enumerate(clips, start=1):
            folder = temporary / _FOLDER / clip.name
            folder.mkdir(parents=True)
            comment = f"{MARK} {VERSION}: no photograph. generator {sampler.provenance.generator}, {clip.name}"
            for frame, face in enumerate(frames_of(sampler, clip, frames), start=1):
                (folder / crop_name(frame)).write_bytes(_jpeg(face, comment))
            on_progress(number, len(clips))
        with open(temporary / CSV, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(_COLUMNS)
            table.writerows(row for clip in clips for row in _rows(clip, frames, sampler))
        sampler.provenance.write(temporary / PROVENANCE)


def frames_of(sampler: Sampler, clip: Clip, frames: int) -> Tensor:
    """The faces of a clip, uint8 [T, 3, S, S]."""
    rng = np.random.default_rng([clip.seed, clip.subject, clip.label])
    identity = identity_of(clip.seed, clip.subject, sampler.identity_length)
    other = torch.from_numpy(rng.standard_normal(sampler.identity_length)).float()
    turn = torch.from_numpy(_path(frames, rng) * _DRIFT).float()[:, None]
    faces = sampler.faces(identity * turn.cos() + other * turn.sin(), class_path(clip.label, frames, sampler))
    return _move(faces, rng)


def class_path(label: int, frames: int, sampler: Sampler) -> Tensor:
    """Class codes float32 [T, C]: Neutral, then smoothly the class, then the class held."""
    if _NEUTRAL not in sampler.classes:
        return codes_of([label] * frames)
    progress = ((torch.arange(frames) / frames - _ONSET) / (_APEX - _ONSET)).clamp(0, 1)
    shown = (progress * progress * (3 - 2 * progress))[:, None]
    return codes_of([label] * frames) * shown + codes_of([_NEUTRAL] * frames) * (1 - shown)


def _path(frames: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth way float64 [T] within [-1, 1]: two slow waves with random phases."""
    time = np.arange(frames) / NOMINAL_RATE
    phases, rates = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.2, 0.6, 2)
    return np.asarray(np.sin(2 * np.pi * rates[:, None] * time + phases[:, None]).mean(axis=0))


def _move(faces: Tensor, rng: np.random.Generator) -> Tensor:
    """Turns and shifts faces a little, smoothly over the frames; uint8 [T, 3, S, S]."""
    angle, x, y = (torch.from_numpy(_path(len(faces), rng)).float() for _ in range(3))
    angle, shifts = angle * _TURN, torch.stack([x, y], dim=1) * _SHIFT
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).unflatten(1, (2, 2))
    grid = affine_grid(torch.cat([rotation, shifts[..., None]], dim=2), list(faces.shape), align_corners=False)
    moved = grid_sample(faces.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.round().clamp(0, 255).to(torch.uint8)


def _rows(clip: Clip, frames: int, sampler: Sampler) -> Iterator[tuple[str, ...]]:
    """The rows of a clip: Neutral before the onset, its class from the apex on, no label between them."""

    def row(label: int, start: str, end: str) -> tuple[str, ...]:
        path = f"{_FOLDER}/{clip.name}"
        return path, EXPR.columns[label], clip.person, "train", start, end, clip.name, PROVENANCE

    if clip.label == _NEUTRAL or _NEUTRAL not in sampler.classes:
        yield row(clip.label, "", "")
        return
    # Halfway between two frames, so that rounding does not matter.
    first, last = ((np.ceil(frames * fraction) - 0.5) / NOMINAL_RATE for fraction in (_ONSET, _APEX))
    yield row(_NEUTRAL, "", f"{first:.2f}")
    yield row(clip.label, f"{last:.2f}", "")


def _jpeg(face: Tensor, comment: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(face.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=JPEG_QUALITY, comment=comment)
    return file.getvalue()
