"""Makes the golden submission files with plain string building, without the code under test.

    python tests/golden/make_golden.py

Everything is invented: three videos, two of which are people in one recording. EXPR's files stand in the folder itself,
those of the other challenges in a folder each; `labels.json` holds what was predicted, by challenge, video and frame.
"""

import json
from collections.abc import Callable
from pathlib import Path

GOLDEN = Path(__file__).parent / "submission"
CLASSES = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
UNITS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
COMPOUND = (
    "Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,Disgustedly_Surprised,Angrily_Surprised,Sadly_Fearful,"
    "Sadly_Angry"
)
LENGTHS = {"5-60-640x360": 11, "video7_left": 8, "video7": 3}


def expression(video: str, frame: int) -> int:
    """Any rule that meets all classes and differs between videos."""
    return (3 * frame + len(video)) % 8


def compound(video: str, frame: int) -> int:
    return (3 * frame + len(video)) % 7


def affect(video: str, frame: int) -> list[float]:
    """Hundredths, with both ends of the range and zero among them."""
    return [((67 * frame + len(video)) % 5 - 2) / 2, ((41 * frame + len(video)) % 201 - 100) / 100]


def units(video: str, frame: int) -> list[int]:
    return [(frame * (unit + 1) + len(video)) % 5 // 3 for unit in range(12)]


def text(numbers: list[float] | list[int] | int) -> str:
    """Numbers as they stand in a line: valence and arousal with four decimals, without minus zero."""
    if isinstance(numbers, int):
        return str(numbers)
    return ",".join(str(n) if isinstance(n, int) else f"{n:.4f}".replace("-0.0000", "0.0000") for n in numbers)


Rule = Callable[[str, int], list[float] | list[int] | int]
ANSWERS: dict[str, tuple[str, dict[str, Rule]]] = {
    "": (f"image_location,{CLASSES}", {"expr": expression}),
    "va/": ("image_location,valence,arousal", {"va": affect}),
    "au/": (f"image_location,{UNITS}", {"au": units}),
    "multi-task/": ("image,valence,arousal,expression,aus", {"va": affect, "expr": expression, "au": units}),
    "compound/": (f"image_location,{COMPOUND}", {"compound": compound}),
}
"""By folder: the header of the one file, and what its lines answer."""


def golden_files() -> dict[str, str]:
    """The text of every golden file by its name."""
    files: dict[str, str] = {}
    for folder, (header, rules) in ANSWERS.items():
        files |= {f"{folder}{name}": content for name, content in one_file(header, rules).items()}
    for folder, header in {"": CLASSES, "va/": "valence,arousal", "au/": UNITS}.items():
        (rule,) = ANSWERS[folder][1].values()
        for video, length in LENGTHS.items():
            lines = [header] + [text(rule(video, frame)) for frame in range(1, length + 1)]
            files[f"{folder}per_video/{video}.txt"] = "\n".join(lines) + "\n"
    return files


def one_file(header: str, rules: dict[str, Rule]) -> dict[str, str]:
    """A template, the example with dummy labels, what is predicted, and the submission."""
    frames = [(video, frame) for video, length in LENGTHS.items() for frame in range(1, length + 1)]
    names = [f"{video}/{frame:05d}.jpg" for video, frame in frames]
    answers = [",".join(text(rule(*frame)) for rule in rules.values()) for frame in frames]
    # The videos have more frames than the template has rows, as in the real release.
    labels = {
        challenge: {
            video: {frame: rule(video, frame) for frame in range(1, length + 3)} for video, length in LENGTHS.items()
        }
        for challenge, rule in rules.items()
    }
    return {
        "template.txt": f"{header}\n" + "".join(f"{name},\n" for name in names),
        "example.txt": f"{header}\n" + "".join(f"{name},0\n" for name in names),
        "labels.json": json.dumps(labels) + "\n",
        "predictions.txt": f"{header}\n"
        + "".join(f"{name},{answer}\n" for name, answer in zip(names, answers, strict=True)),
    }


if __name__ == "__main__":
    for file_name, content in golden_files().items():
        (GOLDEN / file_name).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / file_name).write_bytes(content.encode())
