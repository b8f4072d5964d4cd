"""Options of data sets of labelled clips; imports little, for the command line's help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff

from abaw_expr.errors import SettingsError

DatasetKind = Literal["aff-wild2", "afew", "ck+", "ravdess", "clips"]


@dataclass(frozen=True)
class ClipOptions:
    """How a data set of labelled clips becomes a store; not for aff-wild2."""

    labels: Path | None = None
    """A YAML file with a line `word: Class` for each label with another meaning, such as `contempt: Disgust`; `word:
    null` means not annotated."""
    crops: tuple[Path, ...] = ()
    """Folders of crops, with a folder a clip: CLIP/00001.jpg."""
    images_are_faces: Annotated[bool, FlagCreatePairsOff] = False
    """The images are cropped faces and are used as crops."""
    val_fraction: float = 0.2
    """Fraction of the subjects that validate if the data set has no split of its own: always the same subjects, with
    all their clips."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction <= 1:
            raise SettingsError(
                "--val-fraction cannot be used", found=self.val_fraction, expected="a fraction from 0 to 1"
            )
