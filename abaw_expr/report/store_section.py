"""What a page shows of a store: its videos by task and split, from the manifest alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from abaw_expr.data.store.store import read_manifest
from abaw_expr.report.blocks import Part, Table
from abaw_expr.tasks.names import recording_of

_SPLITS = ("train", "val", "test")


def store_section(root: Path) -> Part:
    """The videos of a store. Raises StoreError where it is none."""
    manifest = read_manifest(root)
    rows = [(task, split, *_counts(task, split, manifest["videos"])) for task in manifest["tasks"] for split in _SPLITS]
    columns = ("task", "split", "recordings", "videos", "annotated lines", "frames", "with a crop, %")
    return Part(f"Store: {root.resolve().name}", [Table("Videos by task and split", columns, rows)])


def _counts(task: str, split: str, videos: Mapping[str, Any]) -> tuple[int | str | None, ...]:
    own = {name: video for name, video in videos.items() if video["splits"].get(task) == split}
    frames, crops = (sum(int(video[key]) for video in own.values()) for key in ("frames", "crops"))
    lines = sum(int(video["lines"].get(task, 0)) for video in own.values())
    recordings = len({recording_of(name) for name in own})
    return recordings, len(own), lines, frames, f"{100 * crops / frames:.1f}" if frames else None
