"""Imports the numbers of any model as a branch of an outputs table, and checks every row.

A source is one of
- a CSV or Parquet file with the columns `video` and `frame`, or `image_location` (`video/00001.jpg`), and one column
  for each class, with the name of the class,
- a folder of files `<video>.npz` with `probabilities` or `logits` [T, C], `classes` [C], their names, and `frame` [T]
  (default: 1 to T).

For action units there is one column for each unit (`AU1`), the probability that it is active; for valence and arousal
the `values`, under their names. Frames count from 1. The rows of the imported table are those of another table, with
which it will be tuned or submitted, or those of annotations or a template (`frames_of`). Names of videos are always
read as text, and other usual spellings of the table's names are accepted (`abaw_expr.tasks.names`).

Shapes: N rows of the source, T frames of one video, C numbers of a row, F fields.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from abaw_expr.errors import OutputsError, shorten, unreadable
from abaw_expr.outputs.table import Outputs, Source, branch_columns, check_branch_name, label_columns
from abaw_expr.tasks.names import meant_names
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import IMAGE_COLUMN, Task

_IMAGE = r"(?i)^\s*(?P<video>.+)[/\\]0*(?P<frame>\d+)\.(?:jpe?g|png)\s*$"
_CLOSE_TO_1 = 0.05
"""Rows of numbers from 0 to 1 whose sums differ from 1 by at most this are taken for probabilities, not logits."""


@dataclass(frozen=True, eq=False)
class SourceRows:
    """The rows of a source."""

    video: NDArray[np.object_]
    """[N], text; None where the cell holds no name."""
    frame: NDArray[np.float64]
    """[N], NaN where the cell is not a number."""
    p: NDArray[np.float64]
    """[N, C], NaN where the cell is not a number."""
    logits: bool
    where: Callable[[int], tuple[Path, int]]
    """The file of a row by its index, and its line or row in the file, from 1."""
    cells: NDArray[np.object_] | None = None
    """[N], the text in the source that identifies the frame; None: built from video and frame."""
    written: NDArray[np.object_] | None = None
    """[N, C], the numbers as written in the source; None: as in `p`."""


@dataclass(frozen=True)
class Imported:
    """The imported table, and how the rows of the source were matched to it."""

    outputs: Outputs
    used: int
    """Number of source rows in the table."""
    unmatched: int
    """Number of source rows of videos or frames that the table does not have."""
    unfilled: int
    """Number of table rows without a source row; the branch is missing there."""
    scaled: int
    """Number of rows whose rounded probabilities were normalised to sum to 1."""
    respelled: Mapping[str, str]
    """The table's name of each source video that is spelled differently there."""
    extra_videos: tuple[str, ...]
    """Names of the source videos that the table does not have."""


def import_branch(
    path: Path, name: str, like: Outputs, logits: bool, prior: Sequence[float] | None, incomplete: bool
) -> Imported:
    """Reads a source as the branch `name` with the rows of `like`.

    `prior` [C] is the average over the model's training data (`abaw_expr.outputs.table`); the default is equal
    fractions for classes and 0 for values and units. `incomplete` allows that whole videos are missing. Raises
    OutputsError where the source cannot be read, its columns do not have the task's names, or a row is invalid (does
    not sum to 1, a value out of range) or occurs twice; the message names the row.
    """
    task, kind = like.task, metric_of(like.task)
    usual = tuple(prior) if prior is not None else kind.unknown_prior
    check_branch_name(name)
    if not kind.is_prior(usual):
        raise OutputsError("--prior cannot be used", found=usual, expected=kind.prior_expected)
    given = _read(path, task, logits)
    return join_branch(given, path, name, like, usual, incomplete)


def join_branch(
    given: SourceRows, path: Path, name: str, like: Outputs, prior: tuple[float, ...], incomplete: bool
) -> Imported:
    """Makes the rows of the source at `path` the branch `name`, as `import_branch` does; `prior` is [C]."""
    task, kind = like.task, metric_of(like.task)
    names = list(dict.fromkeys(like.table["video"].astype(str)))
    given, respelled = _respell(given, names)
    scaled = given.p if given.logits else kind.rounded(given.p)
    changed = int((~np.isclose(scaled, given.p, rtol=0, atol=1e-9, equal_nan=True)).any(axis=1).sum())
    given = replace(given, p=scaled.astype(np.float64))
    _check(given, path, task)
    p = kind.from_logits(given.p) if given.logits else given.p
    rows = pd.MultiIndex.from_arrays([given.video, given.frame.astype(np.int64)])
    wanted = pd.MultiIndex.from_arrays([like.table["video"].astype(object), like.table["frame"].astype(np.int64)])
    extra_videos = tuple(sorted(set(given.video) - set(names)))
    _check_videos(path, given, names, extra_videos, incomplete)
    source_row = rows.get_indexer(wanted)
    found = source_row >= 0
    if not found.any():
        numbers = [f"{int(column.min())} to {int(column.max())}" for column in (given.frame, like.table["frame"])]
        remedy = "Frames count from 1 within each video."
        raise OutputsError("has no frame of the table", path=path, found=numbers[0], expected=numbers[1], remedy=remedy)
    aligned = np.where(found[:, None], p[source_row], np.nan).astype(np.float32)
    columns = dict(zip(branch_columns(name, task), aligned.T, strict=True))
    labels = {column: like.table[column] for column in label_columns(task)}
    table = like.table[["video", "frame", "time", "crop"]].assign(**columns, **labels)
    used = int(found.sum())
    outputs = replace(like, table=table, branches={name: Source(path.name, prior)}, paths=())
    return Imported(outputs, used, len(p) - used, len(found) - used, changed, respelled, extra_videos)


def frames_of(
    task: Task,
    split: str,
    frames: Mapping[str, NDArray[np.integer]],
    times: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> Outputs:
    """A table of frames without branches, to which `import_branch` adds one.

    `frames` are the frame numbers [T] by video, `times` their seconds [T], `labels` their annotations [T] or [T, F];
    None: not annotated. `crop` is False for all frames, as it is not known.
    """
    columns, ignored = list(label_columns(task)), [field.ignore_value for field in task.fields]
    parts = []
    for video, numbers in sorted(frames.items()):
        given = np.tile(ignored, (len(numbers), 1)) if labels is None else labels[video].reshape(len(numbers), -1)
        part = pd.DataFrame({"video": video, "frame": numbers, "time": times[video], "crop": False})
        parts.append(part.assign(**dict(zip(columns, given.T, strict=True))))
    return Outputs(task, pd.concat(parts, ignore_index=True), split, {})


def _read(path: Path, task: Task, logits: bool) -> SourceRows:
    parquet = path.suffix.lower() == ".parquet"
    try:
        if path.is_dir():
            return _read_folder(path, task, logits)
        table = _read_parquet(path) if parquet else _read_csv(path)
    except OSError as error:
        raise unreadable(OutputsError, path, error) from error
    except (ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        raise OutputsError(f"is not a {'Parquet' if parquet else 'CSV'} file ({error})", path=path) from error
    return _from_table(table, path, task, logits, first=1 if parquet else 2)  # after the header


def _read_parquet(path: Path) -> pd.DataFrame:
    """The columns of a Parquet file, including those that pandas wrote as an index."""
    table = pd.read_parquet(io.BytesIO(path.read_bytes()))  # pyarrow accepts only paths that are UTF-8
    return table.reset_index() if any(table.index.names) else table


def _read_csv(path: Path) -> pd.DataFrame:
    """A CSV whose identifiers are read as text: a video may be named 0012, NA or 1e5."""
    header = pd.read_csv(path, nrows=0, skipinitialspace=True).columns
    separator = next((character for character in ";\t|" if len(header) == 1 and character in header[0]), None)
    if separator is not None:
        remedy = "Separate cells by commas, and write decimal points in numbers."
        raise OutputsError("is not separated by commas", path=path, found=separator, expected="commas", remedy=remedy)
    text = {column: str for column in header if _plain(column) in ("video", "frame", IMAGE_COLUMN)}
    table = pd.read_csv(path, skipinitialspace=True, dtype=text, keep_default_na=False, na_values={}, low_memory=False)
    if not isinstance(table.index, pd.RangeIndex):  # pandas reads surplus cells as an index
        found, expected = table.index.nlevels + len(header), f"{len(header)}, as in the header"
        raise OutputsError("has rows with more cells than the header", path=path, found=found, expected=expected)
    return table


def _from_table(table: pd.DataFrame, path: Path, task: Task, logits: bool, first: int) -> SourceRows:
    known = {_plain(column): column for column in table.columns}
    _check_once(path, [_plain(column) for column in table.columns], task)
    classes = [known.get(name.lower()) for name in task.columns]
    if None in classes:
        _refuse_classes(path, [str(column) for column in table.columns], task)
    if {"video", "frame"} <= known.keys():
        video, frame = _texts(table[known["video"]], path), table[known["frame"]]
        cells = _joined_cells(table[[known["video"], known["frame"]]])
    elif IMAGE_COLUMN in known:
        cells = _texts(table[known[IMAGE_COLUMN]], path)
        parts = pd.Series(cells).str.extract(_IMAGE)
        video, frame = _without(parts["video"], parts["video"].isna()), parts["frame"]
    else:
        expected = f"columns video and frame, or {IMAGE_COLUMN} with video/00001.jpg"
        raise OutputsError("has no columns that name the frames", path=path, found=list(known), expected=expected)
    numbers = table[classes].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    frames = pd.to_numeric(frame, errors="coerce").to_numpy(np.float64)
    return SourceRows(
        video, frames, numbers, logits, lambda row: (path, row + first), cells, table[classes].to_numpy(object)
    )


def _check_once(path: Path, columns: Sequence[str], task: Task) -> None:
    """Raises OutputsError where a column that is read occurs twice, in any case of letters."""
    read = {"video", "frame", IMAGE_COLUMN, *map(_plain, task.columns)}
    twice = [name for name in dict.fromkeys(columns) if name in read and columns.count(name) > 1]
    if twice:
        raise OutputsError("has a column twice", path=path, found=", ".join(twice), expected="each column once")


def _plain(column: object) -> str:
    return str(column).strip().lower()


def _joined_cells(columns: pd.DataFrame) -> NDArray[np.object_]:
    rows = zip(columns.iloc[:, 0].map(_cell_text), columns.iloc[:, 1].map(_cell_text), strict=True)
    return np.array([", ".join(row) for row in rows], object)


def _cell_text(value: object) -> str:
    return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)


def _texts(column: pd.Series, path: Path) -> NDArray[np.object_]:
    """A column of names as text, None where a cell is empty. Raises OutputsError for a column of another type."""
    if pd.api.types.is_float_dtype(column) or pd.api.types.is_bool_dtype(column):
        found = f"{column.name}, {column.dtype}"
        raise OutputsError("has names that are not text", path=path, found=found, remedy="Write that column as text.")
    text = column.astype(str)
    empty = column.isna() | (text.str.strip() == "")
    return _without(text, empty)


def _without(text: pd.Series, empty: pd.Series) -> NDArray[np.object_]:
    """Text [N], None where it is empty."""
    found = text.to_numpy(object)
    found[empty.to_numpy()] = None
    return found


def _read_folder(folder: Path, task: Task, logits: bool) -> SourceRows:
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
        problem = f"has some files with logits and others with {metric_of(task).noun}"
        raise OutputsError(problem, path=folder, expected="the same in all files")
    names = np.repeat(np.array([file.stem for file in files], object), [len(p) for p, _, _ in parts])
    frames = np.concatenate([frame for _, frame, _ in parts]).astype(np.float64)
    return SourceRows(names, frames, np.concatenate([p for p, _, _ in parts]), logits or kinds.pop(), where)


def _read_npz(file: Path, task: Task) -> tuple[NDArray[np.float64], NDArray[Any], bool]:
    """A video's numbers [T, C], its frames [T], and whether the numbers are logits."""
    arrays = _arrays_of(file)
    noun = metric_of(task).noun
    kind = next((name for name in (noun, "logits") if name in arrays), None)
    if kind is None:
        raise OutputsError("has no numbers", path=file, found=sorted(arrays), expected=f"{noun} or logits")
    p = _real(arrays[kind], kind, file)
    names = [_plain(_decoded(name)) for name in arrays.get("classes", np.zeros(0)).flat]
    _check_once(file, names, task)
    if not {_plain(name) for name in task.columns} <= set(names):
        _refuse_classes(file, names, task)
    if p.ndim != 2 or p.shape[1] != len(names):
        raise OutputsError(f"{kind} has another shape", path=file, found=p.shape, expected=f"(frames, {len(names)})")
    frames = _real(arrays["frame"], "frame", file) if "frame" in arrays else np.arange(1, len(p) + 1)
    if frames.shape != p.shape[:1]:
        found = len(frames) if frames.ndim == 1 else frames.shape
        raise OutputsError("frame has another length", path=file, found=found, expected=len(p))
    order = [names.index(_plain(name)) for name in task.columns]
    return p[:, order], frames, kind == "logits"


def _arrays_of(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(file), np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise unreadable(OutputsError, file, error) from error
    except (ValueError, EOFError, LookupError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise OutputsError(f"is not an NPZ file ({error})", path=file) from error


def _real(array: NDArray[Any], name: str, file: Path) -> NDArray[np.float64]:
    """An array of numbers, or of text that holds numbers, as float64."""
    if array.dtype.kind in "biufUS":
        try:
            return array.astype(np.float64)
        except ValueError:
            pass
    raise OutputsError(
        f"{name} are not numbers",
        path=file,
        found=f"{array.dtype}: {shorten([str(value) for value in array.flat[:3]])}",
    )


def _decoded(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _respell(given: SourceRows, names: Sequence[str]) -> tuple[SourceRows, dict[str, str]]:
    """The rows with the table's names, and the table's name of each name that was spelled differently."""
    found = list(dict.fromkeys(video for video in given.video if video is not None))
    meant = {name: other for name, other in meant_names(found, names).items() if name != other}
    if not meant:
        return given, meant
    return replace(given, video=np.array([meant.get(video, video) for video in given.video], object)), meant


def _check(given: SourceRows, path: Path, task: Task) -> None:
    """Raises OutputsError for the first invalid row."""
    p, frame, kind = given.p, given.frame, metric_of(task)
    if given.logits and kind.distribution and _are_probabilities(p):
        remedy = "Leave out --logits: it would take the softmax of probabilities."
        raise OutputsError("holds probabilities, not logits", path=path, found=_rounded(p[0]), remedy=remedy)
    whole = np.isfinite(frame) & (frame >= 1) & (frame == np.floor(frame))
    known = np.array([isinstance(video, str) for video in given.video], bool)
    rows = pd.MultiIndex.from_arrays([given.video, frame])
    location = "a video and a frame counted from 1, such as VIDEO/00001.jpg"
    numbers, cells = (lambda row: _rounded(p[row])), (lambda row: _cell(given, row))
    columns, written = np.array(task.columns, object), p if given.written is None else given.written

    def non_numbers(row: int) -> str:
        bad = ~np.isfinite(p[row])
        pairs = zip(columns[bad], map(_cell_text, written[row][bad]), strict=True)
        return shorten([f"{name} {cell!r}" for name, cell in pairs])

    absent = "Leave out the rows of frames without numbers: the branch is then missing there."
    faults: list[tuple[str, str, str, Any, Callable[[int], object]]] = [
        ("does not name a frame", location, "", ~(whole & known), cells),
        ("occurs twice", "one row per frame", "", np.asarray(rows.duplicated()), cells),
        (
            "has a cell that is not a number",
            f"{task.n_columns} numbers",
            absent,
            ~np.isfinite(p).all(axis=1),
            non_numbers,
        ),
    ]
    if not given.logits:
        faults += [(problem, expected, kind.remedy, wrong, numbers) for problem, expected, wrong in kind.row_faults(p)]
    for problem, expected, remedy, wrong, found in faults:
        if wrong.any():
            row, count = int(wrong.argmax()), int(wrong.sum())
            file, line = given.where(row)
            of = f"video {given.video[row]}, frame {frame[row]:g}: " if whole[row] and known[row] else ""
            more = f"{count - 1} more rows have this fault. " if count > 1 else ""
            raise OutputsError(
                f"{of}the row {problem}",
                path=file,
                line=line,
                found=found(row),
                expected=expected,
                remedy=f"{more}{remedy}".strip(),
            )


def _cell(given: SourceRows, row: int) -> str:
    """The text in the source that identifies the frame of a row."""
    return f"{given.video[row]}, {given.frame[row]:g}" if given.cells is None else str(given.cells[row])


def _are_probabilities(p: NDArray[np.float64]) -> bool:
    """Whether all rows look like probabilities, as fractions of 1 or in percent."""
    whole = 100 if p.max(initial=0) > 1 + _CLOSE_TO_1 else 1
    close = np.abs(p.sum(axis=1) / whole - 1) <= _CLOSE_TO_1
    return bool(len(p)) and bool(((p >= 0) & (p <= whole * (1 + _CLOSE_TO_1))).all() and close.all())


def _rounded(row: NDArray[np.float64]) -> list[float]:
    numbers: list[float] = np.round(row, 4).tolist()
    return numbers


def _check_videos(path: Path, given: SourceRows, names: Sequence[str], extra: Sequence[str], incomplete: bool) -> None:
    """Raises OutputsError where the source lacks videos of the table; with `incomplete`, where it lacks all of them."""
    there = set(given.video)
    missing = sorted(set(names) - there)
    if not missing or (incomplete and len(missing) < len(set(names))):
        return
    found = f"{len(missing)} missing: {shorten(missing)}"
    others = f"It has other videos: {shorten(extra)}. " if extra else ""
    if len(missing) == len(set(names)):
        remedy = f"{others}Use the table's names of videos."
        raise OutputsError("holds no video of the table", path=path, found=found, remedy=remedy)
    remedy = f"{others}Add them, or use --incomplete: the branch is then missing in these videos."
    raise OutputsError("lacks videos", path=path, found=found, remedy=remedy)


def _refuse_classes(path: Path, found: Sequence[str], task: Task) -> None:
    named = metric_of(task).columns_are
    remedy = f"Name the columns after the {named}: their order is not assumed."
    problem = f"has no columns with the names of the {named}"
    raise OutputsError(problem, path=path, found=list(found), expected=task.header, remedy=remedy)
