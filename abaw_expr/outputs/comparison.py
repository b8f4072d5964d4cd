"""Whether two tables of outputs can be compared: they annotate the same frames alike."""

import pandas as pd

from abaw_expr.errors import OutputsError
from abaw_expr.outputs.table import Outputs, label_columns


def check_same_annotations(first: Outputs, other: Outputs) -> None:
    """Raises OutputsError where two tables do not annotate the same frames alike, so that they cannot be compared."""
    remedy = "Compare tables of the same split, made with the same annotations."
    if other.task != first.task:
        found, expected = other.task.name, first.task.name
        raise OutputsError(
            "is not of the same annotated frames, but of another challenge",
            path=other.path,
            found=found,
            expected=expected,
            remedy=remedy,
        )
    one, two = (_annotated_rows(outputs) for outputs in (first, other))
    extra, lacking = two.index.difference(one.index), one.index.difference(two.index)
    if len(extra) or len(lacking):
        counts = f"{len(extra)} that only this one annotates, {len(lacking)} that only the first does"
        video, frame = (extra if len(extra) else lacking)[0]
        found = f"{counts}, such as video {video}, frame {frame}"
        raise OutputsError("is not of the same annotated frames", path=other.path, found=found, remedy=remedy)
    differ = (one != two.loc[one.index]).any(axis=1)
    if differ.any():
        (video, frame), rows = differ.idxmax(), int(differ.sum())
        found, expected = (part.loc[(video, frame)].tolist() for part in (two, one))
        problem = f"video {video}, frame {frame}: the annotation differs from the first's, as on {rows} frames in all"
        raise OutputsError(problem, path=other.path, found=found, expected=expected, remedy=remedy)


def _annotated_rows(outputs: Outputs) -> pd.DataFrame:
    """The annotations of the frames that have one, by video and frame."""
    columns = label_columns(outputs.task)
    marks = [field.ignore_value for field in columns.values()]
    table = outputs.table[["video", "frame", *columns]]
    annotated = table[(table[[*columns]] != marks).any(axis=1)]
    return annotated.assign(video=annotated["video"].astype(str)).set_index(["video", "frame"])
