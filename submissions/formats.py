"""Every edition's submission format, as data: the only copy.

| edition | task | file |
|---|---|---|
| 3rd | EXPR, VA, AU | a folder, one `<video>.txt` a video: the task's header, a line a frame, without names |
| 5th, 6th, 8th, 10th | EXPR, VA, AU | `predictions.txt`: `image_location` and the task's header, a line a frame |
| 3rd, 4th, 7th, 11th | multi-task | one file: `image,valence,arousal,expression,aus`, a line a frame |
| 7th | compound expressions | one file: `image_location` and the compound classes, a line a frame |

The header is no list of fields: under EXPR's eight names stands one class, under `aus` stand twelve units.
"""

from dataclasses import dataclass

from abaw_expr.tasks import AU, CHALLENGES, EXPR, IMAGE_COLUMN, VA, Challenge, Field


@dataclass(frozen=True)
class Format:
    """What the lines of a file look like."""

    name: str
    header: str
    """Line 1."""
    fields: tuple[Field, ...]
    """The numbers of a line, after the image location."""

    @property
    def example(self) -> str:
        """The numbers of a valid line."""
        return ",".join("0" if field.whole else "0.0" for field in self.fields)


MULTI_TASK = Format("multi-task", "image,valence,arousal,expression,aus", (*VA.fields, *EXPR.fields, *AU.fields))
FORMATS = (*(Format(task.name, task.submission_header, task.fields) for task in CHALLENGES), MULTI_TASK)

VALIDATION_FRAMES = {"expression": (83176, 6127, 5322, 8473, 34941, 25594, 12338, 108259)}
"""Annotated frames of every class of a field in the validation set, counted in the release of the 5th edition on."""


def per_video(task: Challenge) -> Format:
    """The 3rd edition's file of one video: its lines have no image location."""
    return Format(f"{task.name} a video", task.header, task.fields)


def recognise(header: str) -> Format | None:
    """The format that a template's line 1 stands for; None where it is none.

    Compound expressions are known by their names, which all hold an underscore: the classes are those of the header.
    """
    for known in FORMATS:
        if header == known.header:
            return known
    image, *names = header.split(",")
    if image == IMAGE_COLUMN and len(set(names)) == len(names) > 1 and all(map(_is_compound, names)):
        return Format("compound", header, (Field("class", low=0, high=len(names) - 1, unannotated=-1),))
    return None


def _is_compound(name: str) -> bool:
    first, _, second = name.partition("_")
    return first.isalpha() and second.isalpha()
