"""The submission formats of all editions, as data.

| edition | challenge | file |
|---|---|---|
| 3rd | EXPR, VA, AU | a folder of `<video>.txt`: the challenge's header, one line per frame, without names |
| 5th, 6th, 8th, 10th | EXPR, VA, AU | `predictions.txt`: `image_location`, the challenge's header, one line per frame |
| 3rd, 4th, 7th, 11th | multi-task | one file: `image,valence,arousal,expression,aus`, one line per listed image |
| 7th | compound expressions | one file: `image_location` and the compound classes, one line per frame |

The header is not a list of fields: a line has one class for EXPR's eight names, and twelve units for `aus`.
"""

from dataclasses import dataclass

from abaw_expr.tasks.task import AU, EXPR, IMAGE_COLUMN, TASKS, VA, Field, Task, task_of_columns

DECIMALS = 4
"""Decimals that we write of numbers that are not whole: annotations have two, and a fifth does not change the CCC."""


@dataclass(frozen=True)
class Format:
    """The format of the lines of a file."""

    name: str
    header: str
    """Line 1."""
    tasks: tuple[Task, ...]
    """The tasks whose numbers a line has, in this order."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The numbers of a line, after the image location."""
        return tuple(field for task in self.tasks for field in task.fields)


MULTI_TASK = Format("multi-task", "image,valence,arousal,expression,aus", (VA, EXPR, AU))
FORMATS = (*(Format(task.name, task.submission_header, (task,)) for task in TASKS.values()), MULTI_TASK)

VALIDATION_FRAMES = {"expression": (83176, 6127, 5322, 8473, 34941, 25594, 12338, 108259)}
"""Annotated frames of each class of a field in the validation set, counted in the release since the 5th edition."""


def per_video(task: Task) -> Format:
    """The 3rd edition's file of one video: its lines have no image location."""
    return Format(f"{task.name} a video", task.header, (task,))


PER_VIDEO = tuple(map(per_video, TASKS.values()))


def recognise(header: str) -> Format | None:
    """The format with this header, line 1 of a template; None if there is none."""
    for known in FORMATS:
        if header == known.header:
            return known
    image, *names = header.split(",")
    task = task_of_columns(names) if image == IMAGE_COLUMN else None
    return Format(task.name, header, (task,)) if task else None
