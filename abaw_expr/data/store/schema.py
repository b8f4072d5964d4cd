"""The parts of a store's `recording.json` and `manifest.json` that are read again."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat

from abaw_expr.data.media.logmel import MEL_BANDS

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Seconds = Annotated[FiniteFloat, Field(ge=0)]
_Bands = Annotated[list[FiniteFloat], Field(min_length=MEL_BANDS, max_length=MEL_BANDS)]


class AudioEntry(BaseModel):
    """The audio of a recording; the values of `AudioCheck` stand beside it in the file."""

    seconds: _Seconds
    mean: _Bands
    std: _Bands


class VideoEntry(BaseModel):
    """One video (one person)."""

    splits: dict[str, Literal["train", "val", "test"]]
    """By the name of the task."""
    frames: _Count
    """Of the video file and the crops."""
    lines: dict[str, _Count]
    """Of labels, by the name of the task."""
    crops: _Count
    unreadable: list[_Count]


class RecordingEntry(BaseModel):
    """`recording.json`."""

    source: str
    seconds: _Seconds | None
    rate: FiniteFloat | None
    sound: AudioEntry | None
    videos: dict[str, VideoEntry]
    problems: list[dict[str, str]]
    files: dict[str, str]
    bytes: dict[str, _Count]
    subject: str | None = None
    generated_from: list[str] | None = None


class TaskEntry(BaseModel):
    """One challenge whose annotations the store has."""

    columns: list[str]
    digest: str


class ManifestEntry(BaseModel):
    """`manifest.json`; its other values are compared with known ones."""

    tasks: dict[str, TaskEntry]
    recordings: dict[str, str]
