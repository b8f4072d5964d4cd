"""What `recording.json` and `manifest.json` of a store hold, as far as it is read again."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat

from abaw_expr.data.media.logmel import MEL_BANDS

Count = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]
Bands = Annotated[list[FiniteFloat], Field(min_length=MEL_BANDS, max_length=MEL_BANDS)]


class SoundEntry(BaseModel):
    """The sound of a recording; what `soundcheck` measured stands beside it."""

    seconds: Seconds
    mean: Bands
    std: Bands


class VideoEntry(BaseModel):
    """One video (one person)."""

    split: Literal["train", "val", "test"]
    frames: Count
    lines: Count
    crops: Count
    unreadable: list[Count]


class RecordingEntry(BaseModel):
    """`recording.json`."""

    source: str
    seconds: Seconds | None
    rate: FiniteFloat | None
    sound: SoundEntry | None
    videos: dict[str, VideoEntry]
    problems: list[dict[str, str]]
    files: dict[str, str]
    bytes: dict[str, Count]


class ManifestEntry(BaseModel):
    """`manifest.json`; what else it says is compared."""

    recordings: dict[str, str]


class StoreIdentity(BaseModel):
    """`manifest.json`, for who only asks which store it is."""

    digest: str
