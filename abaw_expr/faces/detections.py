"""The table of the faces found in a video, kept in Parquet beside the crops so that nothing is looked for twice.

One row a face: `frame`, `box`, `score`, `points`, `look` as below; the schema's metadata has JSON under the key
`abaw_expr`: every, pictures, width, height, and the source that it was made from.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from abaw_expr.errors import of_machine
from abaw_expr.files import atomic

LOOK = 8
"""Pixels of the side of a look."""
SURE = 0.85
"""The score of a face that is sure to be one; a track must reach it once."""
_KEY = b"abaw_expr"
_SHAPES = {"frame": (), "box": (4,), "score": (), "points": (5, 2), "look": (LOOK * LOOK * 3,)}


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces found in a video, n of them."""

    frame: NDArray[np.int32]
    """[n], ascending, counted from 1."""
    box: NDArray[np.float32]
    """[n, 4]: left, top, right, bottom in pixels of the upright picture."""
    score: NDArray[np.float32]
    """[n], how sure the detector is, up to 1."""
    points: NDArray[np.float32]
    """[n, 5, 2]: eyes, nose, corners of the mouth, left to right in the picture, in its pixels."""
    look: NDArray[np.float32]
    """[n, LOOK * LOOK * 3]: the aligned face as a few large pixels, 0 to 1."""
    every: int
    """Pictures from one in which faces were looked for in any case to the next."""
    pictures: int
    """The number of the video's last picture."""
    width: int
    """Pixels of the upright picture."""
    height: int

    def __len__(self) -> int:
        return len(self.frame)


def save_detections(path: Path, detections: Detections, source: Any) -> None:
    """Writes detections, whole or not at all, with what they were made from (any JSON value)."""
    columns = {}
    for name, shape in _SHAPES.items():
        values = getattr(detections, name)
        flat = pa.array(values.ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape))) if shape else flat
    facts = {name: getattr(detections, name) for name in ("every", "pictures", "width", "height")}
    metadata = {_KEY: json.dumps({**facts, "source": source}).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with atomic(path) as temporary, open(temporary, "wb") as file:  # pyarrow takes UTF-8 paths only
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def load_detections(path: Path, every: int, source: Any) -> Detections | None:
    """What `save_detections` wrote; None where there is nothing whole, of that source and that `every`."""
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()), page_checksum_verification=True).combine_chunks()
        facts = json.loads(table.schema.metadata[_KEY])
        if (facts["every"], facts.pop("source")) != (every, source):
            return None
        arrays: dict[str, Any] = {name: _column(table, name, shape) for name, shape in _SHAPES.items()}
        detections = Detections(**arrays, **facts)
        return detections if _whole(detections) else None
    except Exception as error:  # of bytes that are no such table, Arrow raises whatever it trips over
        if of_machine(error):
            raise
        return None


def _column(table: pa.Table, name: str, shape: tuple[int, ...]) -> np.ndarray:
    column = table[name]
    values = (column.combine_chunks().flatten() if shape else column).to_numpy()
    return values.astype(np.int32 if name == "frame" else np.float32, copy=False).reshape(-1, *shape)


def _whole(detections: Detections) -> bool:
    """Whether it is what detecting gives: as many rows in each column, frames of the video in order, numbers."""
    frame, facts = detections.frame, (detections.pictures, detections.width, detections.height)
    columns = [getattr(detections, name) for name in _SHAPES]
    return (
        all(type(fact) is int and 0 <= fact < 2**31 for fact in facts)
        and all(len(column) == len(frame) and bool(np.isfinite(column).all()) for column in columns)
        and bool((np.diff(frame) >= 0).all() and (frame >= 1).all() and (frame <= detections.pictures).all())
    )
