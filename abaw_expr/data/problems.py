"""What is wrong with a release or a store, as a report says it."""

from dataclasses import dataclass

READ_RIGHT = "Give yourself the right to read it (chmod -R u+rX) and run prepare again."
"""What to do about a folder or a file that the system keeps closed."""


@dataclass(frozen=True)
class Problem:
    """One defect, told once."""

    kind: str
    video: str
    """The video that has it; of a defect of the release or the store itself, the path in there."""
    detail: str
    remedy: str

    def __post_init__(self) -> None:
        """Names of files need not be UTF-8, as reports are: what cannot be written there is shown as escapes."""
        for name in ("video", "detail"):
            text = getattr(self, name).encode(errors="backslashreplace").decode()
            object.__setattr__(self, name, text)
