"""The tasks of the challenges: class names and their order, headers, ignore values, folders and quadrants.

These facts are defined only here; every reader, writer, loss and metric imports them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Field:
    """One number that a frame is annotated with and that is predicted for it."""

    name: str
    low: int
    high: int
    """The smallest and largest value."""
    ignore_value: int
    """The value of a frame that is not annotated; every loss and metric drops it."""
    whole: bool = True
    """Whether only integers are valid."""

    @property
    def expected(self) -> str:
        """The valid predictions, in words."""
        return f"{'an integer' if self.whole else 'a number'} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Task:
    """One task of the challenges: the annotation of a frame, and the organisers' names and file headers."""

    name: str
    """Short name, used in the files that this project writes."""
    kind: Literal["classes", "values", "units"]
    """The kind of annotation, which determines the metric: one class per frame, one value per field, or whether the
    action unit of each field is active."""
    columns: tuple[str, ...]
    """The names in line 1 of the task's files, and of the numbers that a model gives for a frame: the classes where
    the field is a class, otherwise the fields."""
    fields: tuple[Field, ...]
    """The numbers that a frame is annotated with, in the order of a line."""
    annotation_folders: tuple[str, ...]
    """The names of this task's annotation folder in the editions."""
    test_list: str
    """Pattern of the name of the file that lists this task's test videos; compared in lower case."""
    quadrants: tuple[int, ...] = ()
    """The quadrant 1..4 of Russell's circumplex of each class (0: none), for the coarse-fine loss. The paper does not
    publish its assignment; this one is our default: 1 pleasant-active, 2 unpleasant-active, 3 unpleasant-calm,
    4 pleasant-calm."""

    @property
    def header(self) -> str:
        """Line 1 of an annotation file, and of the 3rd edition's submission files."""
        return ",".join(self.columns)

    @property
    def n_columns(self) -> int:
        """Number of values that a model gives for a frame."""
        return len(self.columns)

    @property
    def submission_header(self) -> str:
        """Line 1 of `predictions.txt` and of the organisers' template."""
        return f"{IMAGE_COLUMN},{self.header}"

    @property
    def one_class(self) -> bool:
        """Whether a frame is annotated with one class: labels are then an array [T], otherwise [T, F]."""
        return self.kind == "classes"

    @property
    def ignore_value(self) -> int:
        """The ignore value of the first field: the label of a frame that is not annotated."""
        return self.fields[0].ignore_value


IMAGE_COLUMN = "image_location"
EXPR = Task(
    name="expr",
    kind="classes",
    columns=("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),
    fields=(Field("expression", low=0, high=7, ignore_value=-1),),
    annotation_folders=("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"),
    test_list="expression_*_test_set_release.txt",
    quadrants=(4, 2, 2, 2, 1, 3, 1, 0),
)
_AFFECT = ("valence", "arousal")
VA = Task(
    name="va",
    kind="values",
    columns=_AFFECT,
    fields=tuple(Field(name, low=-1, high=1, ignore_value=-5, whole=False) for name in _AFFECT),
    annotation_folders=("VA_Estimation_Challenge",),
    test_list="valence_arousal_*_test_set_release.txt",
)
_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
AU = Task(
    name="au",
    kind="units",
    columns=_UNITS,
    fields=tuple(Field(name, low=0, high=1, ignore_value=-1) for name in _UNITS),
    annotation_folders=("AU_Detection_Challenge",),
    test_list="action_unit_*_test_set_release.txt",
)
TASKS = {task.name: task for task in (EXPR, VA, AU)}
"""The registry of tasks by name; a new task is added here."""
COMPOUND = "compound"
"""The name of the 7th edition's compound expression challenge, whose classes are in the header of its template."""


def compound(names: Sequence[str]) -> Task:
    """The task of these compound expressions; it has no annotations and no quadrants."""
    return Task(
        name=COMPOUND,
        kind="classes",
        columns=tuple(names),
        fields=(Field("class", low=0, high=len(names) - 1, ignore_value=-1),),
        annotation_folders=(),
        test_list="",
        quadrants=(0,) * len(names),
    )


def task_of_columns(columns: Sequence[str]) -> Task | None:
    """The task whose files have these columns; None if there is none.

    Compound expressions are recognised by their names, two words joined by an underscore (`Fearfully_Surprised`).
    """
    names = tuple(columns)
    for known in TASKS.values():
        if names == known.columns:
            return known
    return compound(names) if len(set(names)) == len(names) > 1 and all(map(_is_compound, names)) else None


def _is_compound(name: str) -> bool:
    first, _, second = name.partition("_")
    return first.isalpha() and second.isalpha()
