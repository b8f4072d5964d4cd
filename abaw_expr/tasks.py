"""What is predicted, and from what: class names, their order, headers, marks, quadrants; sizes of the inputs.

This is the only copy of these facts; every reader, writer, loss and metric takes them from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One number that a frame is annotated with, and predicted to have."""

    name: str
    low: int
    high: int
    """The least and greatest value."""
    unannotated: int
    """The value of a frame that nobody annotated; dropped from every loss and metric."""
    whole: bool = True
    """Whether only whole numbers may stand in a file."""

    @property
    def expected(self) -> str:
        """What may be predicted for it, in words."""
        return f"{'an integer' if self.whole else 'a number'} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Challenge:
    """One challenge: what a frame is annotated with, and how the organisers write it."""

    name: str
    """Short name, as files made by this project carry it."""
    columns: tuple[str, ...]
    """The names in line 1 of its files, and of the numbers that a model gives for a frame: one a class, where the
    field is a class, and one a field otherwise."""
    fields: tuple[Field, ...]
    """The numbers of a frame, in the order of a line."""
    annotation_folders: tuple[str, ...]
    """The names that editions gave to this challenge's annotation folder."""
    test_list: str
    """Pattern of the file that lists this challenge's test videos, over the editions; compared in lower case."""

    @property
    def header(self) -> str:
        """Line 1 of an annotation file, and of the 3rd edition's submission files."""
        return ",".join(self.columns)

    @property
    def n_columns(self) -> int:
        """How many numbers a model gives for a frame."""
        return len(self.columns)

    @property
    def submission_header(self) -> str:
        """Line 1 of `predictions.txt` and of the organisers' template."""
        return f"{IMAGE_COLUMN},{self.header}"


@dataclass(frozen=True)
class Task(Challenge):
    """A challenge of one class a frame, for which this project trains networks."""

    quadrants: tuple[int, ...]
    """A class's quadrant 1..4 of Russell's circumplex (0: in none), for the coarse-fine loss. The paper does not
    publish its assignment; this one is our default: 1 pleasant-active, 2 unpleasant-active, 3 unpleasant-calm,
    4 pleasant-calm."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the organisers' order; a label is an index into it."""
        return self.columns

    @property
    def n_classes(self) -> int:
        return len(self.columns)

    @property
    def unannotated(self) -> int:
        """The label of a frame that nobody annotated; dropped from every loss and metric."""
        return self.fields[0].unannotated


IMAGE_COLUMN = "image_location"
BRANCHES = ("audio", "visual")
"""The modalities that vote, in the order m, n of the proportion criterion."""
CROP_SIDE = 112
"""Pixels of a crop's side, as the organisers hand them out; the picture branch's input."""
SOUND_WINDOW = 184
"""Steps of 16 ms in the sound branch's input: 3 s less the width of one analysis window (models' default)."""
SOUND_STRIDE = 8
"""Steps of sound that a row of the sound branch's feature map stands for: it halves the resolution three times."""
MEL_BANDS = 64
"""Mel bands in the sound branch's input (models' default)."""
PERSON_SUFFIXES = ("_left", "_right")

EXPR = Task(
    name="expr",
    columns=("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),
    fields=(Field("expression", low=0, high=7, unannotated=-1),),
    annotation_folders=("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"),
    test_list="expression_*_test_set_release.txt",
    quadrants=(4, 2, 2, 2, 1, 3, 1, 0),
)
_AFFECT = ("valence", "arousal")
VA = Challenge(
    name="va",
    columns=_AFFECT,
    fields=tuple(Field(name, low=-1, high=1, unannotated=-5, whole=False) for name in _AFFECT),
    annotation_folders=("VA_Estimation_Challenge",),
    test_list="valence_arousal_*_test_set_release.txt",
)
_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
AU = Challenge(
    name="au",
    columns=_UNITS,
    fields=tuple(Field(name, low=0, high=1, unannotated=-1) for name in _UNITS),
    annotation_folders=("AU_Detection_Challenge",),
    test_list="action_unit_*_test_set_release.txt",
)
CHALLENGES = (EXPR, VA, AU)
COMPOUND = "compound"
"""The name of the 7th edition's challenge of compound expressions, whose classes stand in its template's header."""


def compound(names: Sequence[str]) -> Task:
    """The challenge of these compound expressions; it has no annotations and no quadrants."""
    return Task(
        name=COMPOUND,
        columns=tuple(names),
        fields=(Field("class", low=0, high=len(names) - 1, unannotated=-1),),
        annotation_folders=(),
        test_list="",
        quadrants=(0,) * len(names),
    )


def challenge_of(columns: Sequence[str]) -> Challenge | None:
    """The challenge whose files name these columns; None where it is none.

    Compound expressions are known by their names, which all hold an underscore, as in `Fearfully_Surprised`.
    """
    names = tuple(columns)
    for known in CHALLENGES:
        if names == known.columns:
            return known
    return compound(names) if len(set(names)) == len(names) > 1 and all(map(_is_compound, names)) else None


def _is_compound(name: str) -> bool:
    first, _, second = name.partition("_")
    return first.isalpha() and second.isalpha()


def recording_of(video: str) -> str:
    """The recording a video name belongs to: `<id>_left` and `<id>_right` are two people in the one video `<id>`.

    Only a final `_left` or `_right` is stripped; endings such as `-2` and `_3` belong to the id.
    """
    for suffix in PERSON_SUFFIXES:
        if video.endswith(suffix):
            return video.removesuffix(suffix)
    return video


def frame_name(video: str, frame: int) -> str:
    """A frame's row name in a template, `<video>/00001.jpg`; frames count from 1."""
    return f"{video}/{crop_name(frame)}"


def crop_name(frame: int) -> str:
    """The file name of a frame's crop, five digits at least; frames count from 1."""
    return f"{frame:05d}.jpg"
