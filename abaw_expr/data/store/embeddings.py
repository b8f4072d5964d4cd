"""Embeddings in a store: rows that an encoder made of every frame once, or that a team brings.

embeddings/<name>/
    manifest.json               written last: its presence means complete; what made it, and every file's digest
    <recording>/
        embedding.json          what the rows were made from
        <video>.npy             float16 [T, D], a row a frame of the store's table; NaN where a frame has none

Shapes: T frames of a video, D features.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from abaw_expr.data.store.arrays import read_array
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import check_name, digest, file_digest, read_json, write_json
from abaw_expr.version import VERSION

EMBEDDINGS = "embeddings"
MANIFEST = "manifest.json"
ENTRY = "embedding.json"
_FORMAT = 1
_AGAIN = "Run the command that made it again: it makes what is missing."


class Manifest(BaseModel):
    """`manifest.json`."""

    format: int
    version: str
    made: dict[str, Any]
    """What made the rows: the encoder, its weights' digest and its front end, or the files of a team."""
    width: Annotated[int, Field(ge=1)]
    """Features of a row, D."""
    files: dict[str, str]
    """The digest of each video's rows, by `<recording>/<video>`."""
    digest: str
    """Identity of all rows."""


class Entry(BaseModel):
    """`embedding.json` of a recording."""

    source: str
    files: dict[str, str]


def embeddings_folder(root: Path, name: str) -> Path:
    """The folder of the embeddings of that name. Raises StoreError for a name that is no plain one."""
    check_name(name, StoreError, Path(root) / EMBEDDINGS)
    return Path(root) / EMBEDDINGS / name


def read_manifest(root: Path, name: str) -> Manifest:
    """The manifest of complete embeddings. Raises StoreError where there are none of that name."""
    path = embeddings_folder(root, name) / MANIFEST
    if not path.exists():
        there = sorted(found.parent.name for found in (Path(root) / EMBEDDINGS).glob(f"*/{MANIFEST}"))
        remedy = f"Make them: abaw-expr embed --store {root} --encoder NAME --name {name}."
        found = shorten(there) or "none"
        raise StoreError(f"has no embeddings {name}", path=root, found=found, remedy=remedy)
    return _read_manifest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _read_manifest(path: Path, changed: int) -> Manifest:
    manifest = Manifest(**read_json(path, StoreError, _AGAIN, Manifest))
    if manifest.format != _FORMAT:
        raise StoreError("is of another version", path=path, found=manifest.format, expected=_FORMAT)
    return manifest


def read_rows(recording: Path, video: str, name: str) -> np.ndarray:
    """The rows of a video, float16 [T, D], mapped from disk; `recording` is its folder in the store.

    Raises StoreError where the video has none, or they are damaged.
    """
    root = recording.parent.parent
    manifest = read_manifest(root, name)
    key, path = f"{recording.name}/{video}", embeddings_folder(root, name) / recording.name / f"{video}.npy"
    if key not in manifest.files:
        raise StoreError(f"the embeddings {name} lack a video", path=path, found=f"no {key}", remedy=_AGAIN)
    return read_array(path, manifest.files[key], np.float16, (manifest.width,), _AGAIN)


def is_made(folder: Path, source: str) -> bool:
    """Whether a recording's folder of embeddings is complete and made from `source`."""
    try:
        entry = Entry(**read_json(folder / ENTRY, StoreError, "", Entry))
        return entry.source == source and all((folder / f"{video}.npy").exists() for video in entry.files)
    except StoreError:
        return False


def write_entry(folder: Path, source: str, videos: Sequence[str]) -> None:
    """Writes the entry of a recording whose rows lie in `folder`."""
    write_json(
        folder / ENTRY, {"source": source, "files": {video: file_digest(folder / f"{video}.npy") for video in videos}}
    )


def write_manifest(folder: Path, made: Mapping[str, Any], width: int, recordings: Sequence[str]) -> Manifest:
    """Writes the manifest over recordings that are all made."""
    files = dict[str, str]()
    for recording in sorted(recordings):
        entry = Entry(**read_json(folder / recording / ENTRY, StoreError, _AGAIN, Entry))
        files |= {f"{recording}/{video}": known for video, known in entry.files.items()}
    identity = digest([{**made}, files])
    manifest = Manifest(format=_FORMAT, version=VERSION, made={**made}, width=width, files=files, digest=identity)
    write_json(folder / MANIFEST, manifest.model_dump())
    return manifest
