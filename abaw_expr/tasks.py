"""What is predicted, and from what: class names, their order, headers, marks, quadrants; sizes of the inputs.

This is the only copy of these facts; every reader, writer, loss and metric takes them from here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One challenge: its labels and how the organisers write them."""

    name: str
    """Short name, as files made by this project carry it."""
    class_names: tuple[str, ...]
    """Classes in the organisers' order; a label is an index into it."""
    unannotated: int
    """The label of a frame that nobody annotated; dropped from every loss and metric."""
    quadrants: tuple[int, ...]
    """A class's quadrant 1..4 of Russell's circumplex (0: in none), for the coarse-fine loss. The paper does not
    publish its assignment; this one is our default: 1 pleasant-active, 2 unpleasant-active, 3 unpleasant-calm,
    4 pleasant-calm."""
    annotation_folders: tuple[str, ...]
    """The names that editions gave to this challenge's annotation folder."""
    test_list: str
    """Pattern of the file that lists this challenge's test videos, over the editions; compared in lower case."""

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def header(self) -> str:
        """Line 1 of an annotation file, and of the 3rd edition's submission files."""
        return ",".join(self.class_names)

    @property
    def submission_header(self) -> str:
        """Line 1 of `predictions.txt` and of the organisers' template."""
        return f"{IMAGE_COLUMN},{self.header}"


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
    class_names=("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"),
    unannotated=-1,
    quadrants=(4, 2, 2, 2, 1, 3, 1, 0),
    annotation_folders=("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge"),
    test_list="expression_*_test_set_release.txt",
)


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
