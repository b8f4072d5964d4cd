"""The detected faces of a video, stored in Parquet beside the crops, so that no video is searched twice.

One row a face: `frame`, `box`, `score`, `points`, `look` as below; the schema's metadata has JSON under the key
`abaw_expr`: every, pictures, width, height, and the source that it was made from.

Shapes: n faces.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from abaw_expr.errors import is_machine_error
from abaw_expr.files import atomic

LOOK = 8
"""Pixels of a look's side."""
SURE = 0.85
"""The score from which a face is sure; a track must reach it once."""
_KEY = b"abaw_expr"
_FACTS = {"every": "every", "pictures": "frame_count", "width": "width", "height": "height"}
"""Keys of the metadata, with their fields."""
_SHAPES = {"frame": (), "box": (4,), "score": (), "points": (5, 2), "look": (LOOK * LOOK * 3,)}


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces detected in a video, n of them."""

    frame: NDArray[np.int32]
    """[n], ascending, counted from 1."""
    box: NDArray[np.float32]
    """[n, 4]: left, top, right, bottom in pixels of the upright frame."""
    score: NDArray[np.float32]
    """[n], the detector's scores, up to 1."""
    points: NDArray[np.float32]
    """[n, 5, 2]: eyes, nose, corners of the mouth, left to right, in pixels of the upright frame."""
    look: NDArray[np.float32]
    """[n, LOOK * LOOK * 3]: the aligned face reduced to a few pixels, 0 to 1."""
    every: int
    """Frames from one that is searched in any case to the next."""
    frame_count: int
    """The number of the video's last frame."""
    width: int
    """Pixels of the upright frame."""
    height: int

    def __len__(self) -> int:
        return len(self.frame)


def save_detections(path: Path, detections: Detections, source: Any) -> None:
    """Writes detections, whole or not at all, with their source (any JSON value)."""
    columns = {}
    for name, shape in _SHAPES.items():
        values = getattr(detections, name)
        flat = pa.array(values.ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape))) if shape else flat
    facts = {key: getattr(detections, field) for key, field in _FACTS.items()}
    metadata = {_KEY: json.dumps({**facts, "source": source}).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with atomic(path) as temporary, open(temporary, "wb") as file:  # pyarrow opens UTF-8 paths only
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def load_detections(path: Path, every: int, source: Any) -> Detections | None:
    """The detections that `save_detections` wrote; None where there is no intact file of that source and that
    `every`."""
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()), page_checksum_verification=True).combine_chunks()
        facts = json.loads(table.schema.metadata[_KEY])
        if (facts["every"], facts["source"]) != (every, source):
            return None
        arrays: dict[str, Any] = {name: _column(table, name, shape) for name, shape in _SHAPES.items()}
        detections = Detections(**arrays, **{field: facts[key] for key, field in _FACTS.items()})
        return detections if _whole(detections) else None
    except Exception as error:  # Arrow raises many kinds of errors for bytes that are no such table
        if is_machine_error(error):
            raise
        return None


def _column(table: pa.Table, name: str, shape: tuple[int, ...]) -> np.ndarray:
    column = table[name]
    values = (column.combine_chunks().flatten() if shape else column).to_numpy()
    return values.astype(np.int32 if name == "frame" else np.float32, copy=False).reshape(-1, *shape)


def _whole(detections: Detections) -> bool:
    """Whether detections are valid: equally many rows in each column, ascending frames of the video, finite numbers."""
    frame, facts = detections.frame, (detections.frame_count, detections.width, detections.height)
    columns = [getattr(detections, name) for name in _SHAPES]
    return (
        all(type(fact) is int and 0 <= fact < 2**31 for fact in facts)
        and all(len(column) == len(frame) and bool(np.isfinite(column).all()) for column in columns)
        and bool((np.diff(frame) >= 0).all() and (frame >= 1).all() and (frame <= detections.frame_count).all())
    )
