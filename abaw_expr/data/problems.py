"""Defects of a release or a store, as reports list them."""

from dataclasses import dataclass

READ_RIGHT = "Give yourself read permission (chmod -R u+rX) and run prepare again."
"""The remedy of a file or folder that may not be read."""


@dataclass(frozen=True)
class Problem:
    """One defect, reported once."""

    kind: str
    video: str
    """The video with the defect; for a defect of the release or the store itself, the path in it."""
    detail: str
    remedy: str

    def __post_init__(self) -> None:
        """Escapes what UTF-8 cannot encode: file names may hold any bytes, reports may not."""
        for name in ("video", "detail"):
            text = getattr(self, name).encode(errors="backslashreplace").decode()
            object.__setattr__(self, name, text)
