"""How data sets other than the organisers' are read; light, for the command line's help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff

from abaw_expr.errors import SettingsError

DatasetKind = Literal["aff-wild2", "afew", "ck+", "ravdess", "clips"]


@dataclass(frozen=True)
class ClipOptions:
    """How data sets of labelled clips become a store; not for aff-wild2, whose release says it all."""

    labels: Path | None = None
    """A YAML file with a line `word: Class` for each label to be understood otherwise, such as `contempt: Disgust`;
    `word: null` leaves it without annotation."""
    crops: tuple[Path, ...] = ()
    """Folders of crops, with a folder a clip: CLIP/00001.jpg."""
    pictures_are_faces: Annotated[bool, FlagCreatePairsOff] = False
    """Pictures are faces already and serve as crops."""
    val_share: float = 0.2
    """Share of the subjects that validate where the data set has no split of its own: the same ones every time, and
    never a subject's clips in both."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_share <= 1:
            raise SettingsError("--val-share cannot be used", found=self.val_share, expected="a share from 0 to 1")
