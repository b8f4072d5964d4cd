"""A team's own embeddings, from their files to rows on the frames' clock of a store.

    <folder>/<video>.npy        [n, D], a row a frame
    <folder>/<video>.npz        embedding [n, D], and frame [n] (from 1) or time [n] (seconds), or neither
    <folder>/<video>.parquet, .csv, or one such file of all videos, with a column `video`: the columns frame or time, or
                                neither, and a column a feature

Shapes: n rows of a file, D features, T frames of a video.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from abaw_expr.errors import StoreError, shorten, unreadable

_LINES_OFF = range(-1, 3)
"""Rows minus frames that a file of a row a frame may have: tools count the frames of a video in several ways."""
_KEYS = ("video", "frame", "time")
_SUFFIXES = (".npy", ".npz", ".parquet", ".csv")
_NUMBERS = "fiu"
"""Kinds of NumPy's numbers."""
_LARGEST = float(np.finfo(np.float16).max)
_LONGEST = 1.0
"""Seconds from a frame to its row at most, where rows have times."""


@dataclass(frozen=True)
class VideoRows:
    """The rows of one video, as a file has them."""

    video: str
    path: Path
    values: np.ndarray
    """float [n, D]; a row all NaN is none."""
    frame: np.ndarray | None = None
    """float [n], counted from 1."""
    time: np.ndarray | None = None
    """float [n], seconds on the video's clock."""

    def on_clock(self, times: np.ndarray) -> np.ndarray:
        """float16 [T, D], the row of each frame, which is shown at `times` [T]; NaN where it has none.

        Raises StoreError, which names the row, for rows that are no numbers, or not of this video's frames.
        """
        self._check_values()
        rows = np.full((len(times), self.values.shape[1]), np.nan, np.float16)
        if self.time is not None:
            place = self._nearest(self.time, times)
            rows[place >= 0] = self.values[place[place >= 0]]
            return rows
        frame = self._frames(len(times))
        known = frame <= len(times)
        rows[frame[known] - 1] = self.values[known]
        return rows

    def _check_values(self) -> None:
        empty = np.isnan(self.values).all(1)
        wrong = ~empty & ~(np.abs(self.values) <= _LARGEST).all(1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            column = int(np.flatnonzero(~(np.abs(self.values[row]) <= _LARGEST))[0])
            expected = f"numbers within {_LARGEST:g}, which float16 holds, or a row that is all NaN"
            found = f"{self.values[row, column]} as feature {column + 1}"
            raise StoreError(f"row {row + 1} cannot be used", path=self.path, found=found, expected=expected)

    def _frames(self, count: int) -> np.ndarray:
        """int64 [n], the frame of each row."""
        if self.frame is None:
            if len(self.values) - count not in _LINES_OFF:
                remedy = "Give the rows a frame (from 1) or a time (seconds)."
                expected = f"{count}, a row a frame of the video"
                raise StoreError(
                    "has another number of rows",
                    path=self.path,
                    found=len(self.values),
                    expected=expected,
                    remedy=remedy,
                )
            return np.arange(1, len(self.values) + 1)
        whole = np.isfinite(self.frame) & (self.frame == np.floor(self.frame)) & (self.frame >= 1)
        if not whole.all():
            row = int(np.flatnonzero(~whole)[0])
            found = self.frame[row]
            raise StoreError(f"row {row + 1} has no frame", path=self.path, found=found, expected="1 or more")
        frame = self.frame.astype(np.int64)
        first = np.unique(frame, return_index=True)[1]
        if len(first) < len(frame):
            row = int(np.setdiff1d(np.arange(len(frame)), first)[0])
            raise StoreError(f"row {row + 1} names a frame again", path=self.path, found=int(frame[row]))
        if (frame > count + max(_LINES_OFF)).all():
            raise StoreError(
                "has no frame of the video", path=self.path, found=int(frame.min()), expected=f"1 to {count}"
            )
        return frame

    def _nearest(self, time: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """int64 [T], the row nearest to each time; -1 where none is near."""
        if not np.isfinite(time).all() or (np.diff(time) < 0).any():
            bad = ~np.isfinite(time)
            row = int(np.flatnonzero(bad if bad.any() else np.r_[False, np.diff(time) < 0])[0])
            expected = "seconds that do not decrease"
            raise StoreError(f"row {row + 1} has no time", path=self.path, found=time[row], expected=expected)
        if not len(time):
            return np.full(len(wanted), -1)
        after = np.searchsorted(time, wanted).clip(0, len(time) - 1)
        near = np.stack([np.maximum(after - 1, 0), after])
        apart = np.abs(time[near] - wanted)
        chosen = near[apart.argmin(0), np.arange(len(wanted))]
        limit = min(float(np.median(np.diff(time))) if len(time) > 1 else _LONGEST, _LONGEST)
        return np.where(apart.min(0) <= limit, chosen, -1)


def video_readers(source: Path) -> dict[str, Callable[[], VideoRows]]:
    """A reader of the rows of every video of a folder, or of one table.

    Raises StoreError where the source is neither, and so do the readers where a file is damaged or holds other things.
    """
    if not source.is_dir():
        return _of_table(source)
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != ".")
    if not files:
        expected = " or ".join(f"<video>{suffix}" for suffix in _SUFFIXES)
        raise StoreError("holds no embeddings", path=source, expected=expected)
    twice = {path.stem for path in files if sum(other.stem == path.stem for other in files) > 1}
    if twice:
        raise StoreError("has several files of a video", path=source, found=shorten(sorted(twice)))
    return {path.stem: partial(_of_file, path) for path in files}


def _of_file(path: Path) -> VideoRows:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".csv"):
        table = _table(path)
        named = sorted(set(table["video"].astype(str))) if "video" in table else [path.stem]
        if named != [path.stem]:
            raise StoreError("names other videos than its own", path=path, found=shorten(named), expected=path.stem)
        return _video(path.stem, path, table)
    arrays = _arrays(path)
    if "embedding" not in arrays:
        raise StoreError("has no array `embedding`", path=path, found=shorten([*arrays]) or "none")
    values = arrays["embedding"]
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in _NUMBERS:
        found = f"{values.shape} {values.dtype}"
        raise StoreError("holds another array", path=path, found=found, expected="(rows, features) of numbers")
    keys = {name: arrays[name] for name in ("frame", "time") if name in arrays}
    for name, array in keys.items():
        if array.shape != (len(values),) or array.dtype.kind not in _NUMBERS:
            found, expected = f"{array.shape} {array.dtype}", f"({len(values)},) of numbers"
            raise StoreError(f"has another {name}", path=path, found=found, expected=expected)
    return VideoRows(path.stem, path, values, **{name: array.astype(np.float64) for name, array in keys.items()})


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file by name; that of an NPY file as `embedding`."""
    try:
        loaded = np.load(path, allow_pickle=False)
        return (
            {"embedding": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        )
    except OSError as error:
        raise unreadable(StoreError, path, error) from error
    except Exception as error:  # NumPy raises many types of error for bytes that are no array
        raise StoreError(f"is not a {path.suffix[1:].upper()} file", path=path, found=str(error)) from error


def _of_table(path: Path) -> dict[str, Callable[[], VideoRows]]:
    table = _table(path)
    if "video" not in table:
        found = shorten([str(name) for name in table.columns])
        raise StoreError("has no column that names the video", path=path, found=found, expected="video")
    parts = table.groupby(table["video"].astype(str), sort=True)
    return {str(video): partial(_video, str(video), path, part) for video, part in parts}


def _table(path: Path) -> pd.DataFrame:
    kind = "Parquet" if path.suffix.lower() == ".parquet" else "CSV"
    try:
        table = pd.read_parquet(path) if kind == "Parquet" else pd.read_csv(path, dtype={"video": str})
    except OSError as error:
        raise unreadable(StoreError, path, error) from error
    except (ValueError, pa.ArrowException) as error:
        raise StoreError(f"is not a {kind} file", path=path, found=str(error)) from error
    table = table.reset_index() if any(table.index.names) else table
    plain = {name: str(name).strip().lower() for name in table.columns}
    return table.rename(columns={name: known for name, known in plain.items() if known in _KEYS})


def _video(video: str, path: Path, table: pd.DataFrame) -> VideoRows:
    features = [name for name in table.columns if name not in _KEYS]
    wrong = [str(name) for name in features if not pd.api.types.is_numeric_dtype(table[name])]
    if wrong or not features:
        found, expected = shorten(wrong) or "none", "a column of numbers a feature"
        raise StoreError("has columns that are no features", path=path, found=found, expected=expected)
    keys = {
        name: pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
        for name in ("frame", "time")
        if name in table
    }
    return VideoRows(video, path, table[features].to_numpy(np.float64), **keys)
