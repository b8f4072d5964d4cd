"""Any model's numbers as a branch of an outputs table, checked row by row.

A source is one of
- a CSV or Parquet file with `video` and `frame`, or `image_location` (`video/00001.jpg`), and a column a class, under
  the name of the class,
- a folder of `<video>.npz` with `probabilities` or `logits` [T, C], `classes` [C], their names, and `frame` [T]
  (without it 1 to T).

Of action units there is a column a unit (`AU1`), the probability that it is active; of valence and arousal their
`values`, under their names. Frames count from 1. The rows of the table are those of another table, the one that it is
to be tuned or submitted with, or those of annotations or a template (`frames_of`).
Shapes: N rows of the source, T of a video, C numbers of a row.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from abaw_expr.errors import OutputsError, shorten, unreadable
from abaw_expr.files import check_name
from abaw_expr.kinds import kind_of
from abaw_expr.outputs import Outputs, Source, branch_columns, check_branch_name, label_columns
from abaw_expr.tasks import IMAGE_COLUMN, Challenge

IMAGE = r"^(?P<video>.+)/0*(?P<frame>\d+)\.jpg$"


@dataclass(frozen=True, eq=False)
class Given:
    """The rows of a source, as it has them."""

    video: NDArray[np.object_]
    """[N]"""
    frame: NDArray[np.float64]
    """[N], NaN where it is no number."""
    p: NDArray[np.float64]
    """[N, C], NaN where it is no number."""
    logits: bool
    where: Callable[[int], tuple[Path, int]]
    """The file of a row, and its line or row there, from 1."""


@dataclass(frozen=True)
class Imported:
    """The table, and how the source's rows met it."""

    outputs: Outputs
    used: int
    """Rows that are now in the table."""
    beyond: int
    """Rows of videos or frames that the table does not have."""
    silent: int
    """Rows of the table that the source says nothing of: the branch has no vote there."""


def import_branch(
    path: Path, name: str, like: Outputs, logits: bool, prior: Sequence[float] | None, incomplete: bool
) -> Imported:
    """Reads a source as the branch `name` with the rows of `like`.

    `prior` is what the model's training saw on average (`abaw_expr.outputs`); where not known shares of classes are
    even, values and units 0. `incomplete` allows that whole videos are missing. Raises OutputsError where the source
    cannot be read, its columns are not named as the task's, or a row, which is named, cannot be (no distribution over
    classes, a value out of range) or occurs twice.
    """
    task, kind = like.task, kind_of(like.task)
    usual = tuple(prior) if prior is not None else kind.unknown_prior
    check_branch_name(name)
    if not kind.is_prior(usual):
        raise OutputsError("--prior cannot be used", found=usual, expected=kind.prior_expected)
    given = _read(path, task, logits)
    return join_branch(given, path, name, like, usual, incomplete)


def join_branch(
    given: Given, path: Path, name: str, like: Outputs, prior: tuple[float, ...], incomplete: bool
) -> Imported:
    """The rows of a source, which is at `path`, as the branch `name`; otherwise as `import_branch`."""
    task, kind = like.task, kind_of(like.task)
    _check(given, task)
    p = kind.from_logits(given.p) if given.logits else given.p
    rows = pd.MultiIndex.from_arrays([given.video, given.frame.astype(np.int64)])
    wanted = pd.MultiIndex.from_arrays([like.table["video"].astype(object), like.table["frame"].astype(np.int64)])
    if not incomplete:
        _check_videos(path, given, like)
    place = rows.get_indexer(wanted)
    found = place >= 0
    aligned = np.where(found[:, None], p[place], np.nan).astype(np.float32)
    columns = dict(zip(branch_columns(name, task), aligned.T, strict=True))
    labels = {column: like.table[column] for column in label_columns(task)}
    table = like.table[["video", "frame", "time", "crop"]].assign(**columns, **labels)
    used = int(found.sum())
    outputs = replace(like, table=table, branches={name: Source(path.name, prior)}, paths=())
    return Imported(outputs, used, len(p) - used, len(found) - used)


def frames_of(
    task: Challenge,
    split: str,
    frames: Mapping[str, NDArray[np.integer]],
    times: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> Outputs:
    """A table of frames that no branch has said anything of yet, for `import_branch` to fill.

    Frame numbers and their seconds, [T] by video, and annotations, [T] or [T, F]; not annotated where there are none.
    Whether a frame has a crop is not known, and said of none.
    """
    columns, marks = list(label_columns(task)), [field.unannotated for field in task.fields]
    parts = []
    for video, numbers in sorted(frames.items()):
        given = np.tile(marks, (len(numbers), 1)) if labels is None else labels[video].reshape(len(numbers), -1)
        part = pd.DataFrame({"video": video, "frame": numbers, "time": times[video], "crop": False})
        parts.append(part.assign(**dict(zip(columns, given.T, strict=True))))
    return Outputs(task, pd.concat(parts, ignore_index=True), split, {})


def _read(path: Path, task: Challenge, logits: bool) -> Given:
    try:
        if path.is_dir():
            return _read_folder(path, task, logits)
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, skipinitialspace=True)
    except OSError as error:
        raise unreadable(OutputsError, path, error) from error
    except (ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        kind = "Parquet" if path.suffix == ".parquet" else "CSV"
        raise OutputsError(f"is not a {kind} file ({error})", path=path) from error
    first_line = 1 if path.suffix == ".parquet" else 2  # after the header
    return _from_table(table, path, task, logits, first_line)


def _from_table(table: pd.DataFrame, path: Path, task: Challenge, logits: bool, first: int) -> Given:
    known = {str(column).strip().lower(): column for column in table.columns}
    classes = [known.get(name.lower()) for name in task.columns]
    if None in classes:
        _refuse_classes(path, [str(column) for column in table.columns], task)
    if {"video", "frame"} <= known.keys():
        video, frame = table[known["video"]].astype(str), table[known["frame"]]
    elif IMAGE_COLUMN in known:
        parts = table[known[IMAGE_COLUMN]].astype(str).str.extract(IMAGE)
        video, frame = parts["video"], parts["frame"]
    else:
        expected = f"columns video and frame, or {IMAGE_COLUMN} with video/00001.jpg"
        raise OutputsError("does not say which frames its rows are of", path=path, found=list(known), expected=expected)
    numbers = table[classes].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    frames = pd.to_numeric(frame, errors="coerce").to_numpy(np.float64)
    return Given(video.to_numpy(object), frames, numbers, logits, lambda row: (path, row + first))


def _read_folder(folder: Path, task: Challenge, logits: bool) -> Given:
    files = sorted(folder.glob("[!.]*.npz"))
    if not files:
        raise OutputsError("holds no .npz file", path=folder, expected="<video>.npz for every video")
    parts = [_read_npz(file, task) for file in files]
    ends = np.cumsum([len(p) for p, _, _ in parts])

    def where(row: int) -> tuple[Path, int]:
        file = int(np.searchsorted(ends, row, "right"))
        return files[file], row - int(ends[file]) + len(parts[file][0]) + 1

    kinds = {are_logits for _, _, are_logits in parts}
    if len(kinds) > 1:
        problem = f"some files hold logits and others {kind_of(task).noun}"
        raise OutputsError(problem, path=folder, expected="one of them")
    names = np.repeat(np.array([file.stem for file in files], object), [len(p) for p, _, _ in parts])
    frames = np.concatenate([frame for _, frame, _ in parts]).astype(np.float64)
    return Given(names, frames, np.concatenate([p for p, _, _ in parts]), logits or kinds.pop(), where)


def _read_npz(file: Path, task: Challenge) -> tuple[NDArray[np.float64], NDArray[Any], bool]:
    """A video's numbers [T, C], frames [T], and whether the numbers are logits."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise unreadable(OutputsError, file, error) from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise OutputsError(f"is not an NPZ file ({error})", path=file) from error
    noun = kind_of(task).noun
    kind = next((name for name in (noun, "logits") if name in held), None)
    if kind is None:
        raise OutputsError("has no numbers", path=file, found=sorted(held), expected=f"{noun} or logits")
    p, names = held[kind], [str(name).lower() for name in held.get("classes", [])]
    if not {name.lower() for name in task.columns} <= set(names):
        _refuse_classes(file, names, task)
    if p.ndim != 2 or p.shape[1] != len(names):
        raise OutputsError(f"{kind} has another shape", path=file, found=p.shape, expected=f"(frames, {len(names)})")
    frames = held.get("frame", np.arange(1, len(p) + 1))
    if len(frames) != len(p):
        raise OutputsError("frame has another length", path=file, found=len(frames), expected=len(p))
    order = [names.index(name.lower()) for name in task.columns]
    return p[:, order].astype(np.float64), frames, kind == "logits"


def _check(given: Given, task: Challenge) -> None:
    """Raises OutputsError for the first row that cannot be used."""
    p, frame = given.p, given.frame
    whole = np.isfinite(frame) & (frame >= 1) & (frame == np.floor(frame))
    known = np.array([isinstance(video, str) for video in given.video], bool)
    rows = pd.MultiIndex.from_arrays([given.video, frame])
    which = "a video and a frame counted from 1"
    faults = [
        ("does not say which frame it is of", which, "", ~(whole & known)),
        ("occurs twice", "one row a frame", "", np.asarray(rows.duplicated())),
        ("holds what is no number", f"{task.n_columns} numbers", "", ~np.isfinite(p).all(axis=1)),
    ]
    if not given.logits:
        kind = kind_of(task)
        faults += [(problem, expected, kind.remedy, wrong) for problem, expected, wrong in kind.row_faults(p)]
    for problem, expected, remedy, wrong in faults:
        if wrong.any():
            row, count = int(wrong.argmax()), int(wrong.sum())
            path, line = given.where(row)
            of = f"video {given.video[row]}, frame {frame[row]:g}: the row {problem}"
            more = f"{count - 1} more rows like it. " if count > 1 else ""
            found = np.round(p[row], 4).tolist()
            raise OutputsError(
                of, path=path, line=line, found=found, expected=expected, remedy=f"{more}{remedy}".strip()
            )
    for row, name in pd.Series(given.video).drop_duplicates().items():
        check_name(name, OutputsError, *given.where(int(row)))


def _check_videos(path: Path, given: Given, like: Outputs) -> None:
    missing = sorted(set(like.table["video"].astype(str)) - set(given.video))
    if missing:
        found = f"{len(missing)} missing: {shorten(missing)}"
        remedy = "Add them, or say --incomplete: the branch then has no vote in them."
        raise OutputsError("lacks videos", path=path, found=found, remedy=remedy)


def _refuse_classes(path: Path, found: Sequence[str], task: Challenge) -> None:
    named = kind_of(task).columns_are
    remedy = f"Name the columns of the numbers after the {named}: their order cannot be guessed."
    problem = f"does not name the {named}"
    raise OutputsError(problem, path=path, found=list(found), expected=task.header, remedy=remedy)
