"""Makes the golden submission files with plain string building, without the code under test.

    python tests/golden/make_golden.py

Everything is invented: three videos, two of which are people in one recording.
"""

import json
from pathlib import Path

GOLDEN = Path(__file__).parent / "submission"
CLASSES = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
LENGTHS = {"5-60-640x360": 11, "video7_left": 8, "video7": 3}


def label(video: str, frame: int) -> int:
    """Any rule that meets all classes and differs between videos."""
    return (3 * frame + len(video)) % 8


def golden_files() -> dict[str, str]:
    """The text of every golden file by its name."""
    frames = [(video, frame) for video, length in LENGTHS.items() for frame in range(1, length + 1)]
    names = [f"{video}/{frame:05d}.jpg" for video, frame in frames]
    # The videos have more frames than the template has rows, as in the real release.
    labels = {
        video: {frame: label(video, frame) for frame in range(1, length + 3)} for video, length in LENGTHS.items()
    }
    files = {
        "template.txt": f"image_location,{CLASSES}\n" + "".join(f"{name},\n" for name in names),
        "example.txt": f"image_location,{CLASSES}\n" + "".join(f"{name},0\n" for name in names),
        "labels.json": json.dumps(labels, indent=2) + "\n",
        "predictions.txt": f"image_location,{CLASSES}\n"
        + "".join(f"{name},{label(*frame)}\n" for name, frame in zip(names, frames, strict=True)),
    }
    for video, length in LENGTHS.items():
        lines = [CLASSES] + [str(label(video, frame)) for frame in range(1, length + 1)]
        files[f"per_video/{video}.txt"] = "\n".join(lines) + "\n"
    return files


if __name__ == "__main__":
    for file_name, text in golden_files().items():
        (GOLDEN / file_name).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / file_name).write_bytes(text.encode())
