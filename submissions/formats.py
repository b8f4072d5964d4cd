"""Every edition's submission format, as data: the only copy.

| edition | challenge | file |
|---|---|---|
| 3rd | EXPR, VA, AU | a folder, one `<video>.txt` a video: the challenge's header, a line a frame, without names |
| 5th, 6th, 8th, 10th | EXPR, VA, AU | `predictions.txt`: `image_location` and the challenge's header, a line a frame |
| 3rd, 4th, 7th, 11th | multi-task | one file: `image,valence,arousal,expression,aus`, a line a listed image |
| 7th | compound expressions | one file: `image_location` and the compound classes, a line a frame |

The header is no list of fields: under EXPR's eight names stands one class, under `aus` stand twelve units.
"""

from dataclasses import dataclass

from abaw_expr.tasks.task import AU, EXPR, IMAGE_COLUMN, TASKS, VA, Field, Task, task_of_columns

DECIMALS = 4
"""Of a number that is not whole, as we write it: annotations have two, and CCC does not see the fifth."""


@dataclass(frozen=True)
class Format:
    """What the lines of a file look like."""

    name: str
    header: str
    """Line 1."""
    tasks: tuple[Task, ...]
    """What a line answers, in this order."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The numbers of a line, after the image location."""
        return tuple(field for task in self.tasks for field in task.fields)


MULTI_TASK = Format("multi-task", "image,valence,arousal,expression,aus", (VA, EXPR, AU))
FORMATS = (*(Format(task.name, task.submission_header, (task,)) for task in TASKS), MULTI_TASK)

VALIDATION_FRAMES = {"expression": (83176, 6127, 5322, 8473, 34941, 25594, 12338, 108259)}
"""Annotated frames of every class of a field in the validation set, counted in the release of the 5th edition on."""


def per_video(task: Task) -> Format:
    """The 3rd edition's file of one video: its lines have no image location."""
    return Format(f"{task.name} a video", task.header, (task,))


PER_VIDEO = tuple(map(per_video, TASKS))


def recognise(header: str) -> Format | None:
    """The format that a template's line 1 stands for; None where it is none."""
    for known in FORMATS:
        if header == known.header:
            return known
    image, *names = header.split(",")
    task = task_of_columns(names) if image == IMAGE_COLUMN else None
    return Format(task.name, header, (task,)) if task else None
