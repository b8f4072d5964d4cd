"""Every format: corruptions are found, and valid files, made by this file's own code, are never blamed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abaw_expr.errors import TemplateError
from submissions.checking.checker import check_folder, check_predictions
from submissions.checking.faults import Fault

UNITS = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
HEADERS = {
    "expr": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
    "va": "image_location,valence,arousal",
    "au": f"image_location,{UNITS}",
    "multi": "image,valence,arousal,expression,aus",
    "compound": "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Surprised,Disgustedly_Surprised",
}
NAMES = [f"{video}/{frame:05d}.jpg" for video, frames in (("a_left", 3), ("b-2", 4)) for frame in range(1, frames + 1)]
NUMBERS = {
    "expr": "5",
    "va": "0.25,-1",
    "au": "0,1,0,1,0,1,0,1,0,1,0,1",
    "multi": "0.25,-1,5,0,1,0,1,0,1,0,1,0,1,0,1",
    "compound": "3",
}


def write(folder: Path, header: str, rows: list[str], name: str = "predictions.txt") -> Path:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def check_rows(folder: Path, form: str, rows: list[str]) -> list[Fault]:
    template = write(folder, HEADERS[form], [f"{name}," for name in NAMES], "template.txt")
    return check_predictions(write(folder, HEADERS[form], rows), template)


LINES: dict[str, tuple[str, str, str]] = {
    "VA beyond 1": ("va", "0.25,1.01", "label out of range"),
    "VA far below": ("va", "-3,0.5", "label out of range"),
    "VA in percent": ("va", "25,-100", "label out of range"),
    "VA infinite": ("va", "inf,0", "label out of range"),
    "VA NaN": ("va", "nan,0.5", "label not a number"),
    "VA none": ("va", "None,0.5", "label not a number"),
    "VA half empty": ("va", "0.25,", "empty label"),
    "VA empty": ("va", "", "empty label"),
    "VA -5": ("va", "-5,-5", "not-annotated label"),
    "VA -5.0": ("va", "0.5,-5.0", "not-annotated label"),
    "VA exponent": ("va", "2.5e-01,0.5", "label spelling"),
    "VA plus": ("va", "+0.25,0.5", "label spelling"),
    "VA without a zero": ("va", ".25,0.5", "label spelling"),
    "VA decimal commas": ("va", "0,25,-0,5", "decimal comma"),
    "VA one decimal comma": ("va", "0,25,1", "decimal comma"),
    "VA one number": ("va", "0.25", "too few fields"),
    "VA three numbers": ("va", "0.25,0.5,0.5", "too many fields"),
    "VA spaced": ("va", "0.25, 0.5", "spaces"),
    "AU with 11": ("au", "0,1,0,1,0,1,0,1,0,1,0", "too few fields"),
    "AU with 13": ("au", "0,1,0,1,0,1,0,1,0,1,0,1,1", "too many fields"),
    "AU packed": ("au", "010101010101", "too few fields"),
    "AU 2": ("au", "0,2,0,1,0,1,0,1,0,1,0,1", "label out of range"),
    "AU -1": ("au", "-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1", "not-annotated label"),
    "AU probabilities": ("au", "0.9,0.1,0.9,0.1,0.9,0.1,0.9,0.1,0.9,0.1,0.9,0.1", "label not whole"),
    "AU 1.0": ("au", "0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0,0.0,1.0", "label not whole"),
    "AU true": ("au", "True,1,0,1,0,1,0,1,0,1,0,1", "label not a number"),
    "AU trailing comma": ("au", "0,1,0,1,0,1,0,1,0,1,0,1,", "trailing comma"),
    "AU half empty": ("au", "0,1,0,1,0,1,0,1,0,1,0,", "empty label"),
    "AU's spaces": ("au", "0 1 0 1 0 1 0 1 0 1 0 1", "separator"),
    "multi-task without units": ("multi", "0.25,-1,5", "too few fields"),
    "multi-task class 8": ("multi", "0.25,-1,8,0,1,0,1,0,1,0,1,0,1,0,1", "label out of range"),
    "multi-task class 3.0": ("multi", "0.25,-1,3.0,0,1,0,1,0,1,0,1,0,1,0,1", "label not whole"),
    "multi-task valence of -5": ("multi", "-5,-1,5,0,1,0,1,0,1,0,1,0,1,0,1", "not-annotated label"),
    "multi-task decimal comma": ("multi", "0,25,-1,5,0,1,0,1,0,1,0,1,0,1,0,1", "decimal comma"),
    "compound class 4": ("compound", "4", "label out of range"),
    "compound class's name": ("compound", "Sadly_Surprised", "class name"),
    "compound one-hot": ("compound", "0,0,1,0", "column per class"),
}


@pytest.mark.parametrize(("form", "numbers", "kind"), LINES.values(), ids=LINES)
def test_corrupt_numbers_are_one_fault(form: str, numbers: str, kind: str, tmp_path: Path) -> None:
    rows = [f"{name},{NUMBERS[form]}" for name in NAMES]
    assert check_rows(tmp_path, form, rows) == []
    rows[3] = f"{NAMES[3]},{numbers}"
    (fault,) = check_rows(tmp_path, form, rows)
    assert (fault.kind, fault.lines, fault.count) == (kind, (5,), 1)
    (every,) = check_rows(tmp_path, form, [f"{name},{numbers}" for name in NAMES])
    assert (every.kind, every.lines, every.count) == (kind, (2, 3, 4, 5, 6), len(NAMES))


def test_two_faults_of_a_line_are_told_apart(tmp_path: Path) -> None:
    rows = [f"{name},{NUMBERS['multi']}" for name in NAMES]
    rows[0] = f"{NAMES[0]},nan,2,Fear,0,1,0,1,0,1,0,1,0,1,0,-1"
    found = {(fault.kind, fault.lines) for fault in check_rows(tmp_path, "multi", rows)}
    kinds = ("label not a number", "label out of range", "not-annotated label")
    assert found == {(kind, (2,)) for kind in kinds}


@pytest.mark.parametrize("form", HEADERS)
def test_names_and_order_are_checked_in_every_format(form: str, tmp_path: Path) -> None:
    rows = [f"{name},{NUMBERS[form]}" for name in NAMES]
    changes: dict[str, tuple[Callable[[list[str]], list[str]], list[tuple[str, int | None, int]]]] = {
        "missing": (lambda rows: rows[:2] + rows[3:], [("missing row", 4, 1)]),
        "swapped": (lambda rows: [rows[1], rows[0], *rows[2:]], [("row order", 2, 2)]),
        "twice": (lambda rows: [*rows, rows[0]], [("duplicate row", 9, 1)]),
        "surplus": (lambda rows: [*rows, rows[-1].replace("4.jpg", "5.jpg")], [("surplus row", 9, 1)]),
        "quoted": (lambda rows: [f'"{row}"' for row in rows], [("quotes", 2, 7)]),
        "semicolons": (lambda rows: [row.replace(",", ";") for row in rows], [("separator", 2, 7)]),
        "index": (lambda rows: [f"{i},{row}" for i, row in enumerate(rows)], [("extra first column", 2, 7)]),
        "suffix": (lambda rows: [row.replace("_left", "_right") for row in rows], [("left and right", 2, 3)]),
    }
    for name, (change, expected) in changes.items():
        found = [(fault.kind, fault.line, fault.count) for fault in check_rows(tmp_path, form, change(rows))]
        assert found == expected, name


def test_file_of_another_challenge_is_one_fault(tmp_path: Path) -> None:
    template = write(tmp_path, HEADERS["va"], [f"{name}," for name in NAMES], "template.txt")
    (fault,) = check_predictions(write(tmp_path, HEADERS["expr"], [f"{name},7" for name in NAMES]), template)
    assert (fault.kind, fault.line, fault.expected) == ("another challenge", 1, repr(HEADERS["va"]))


def test_folder_of_va_and_au(tmp_path: Path) -> None:
    for form, wrong in (("va", "0.5"), ("au", "0,1")):
        folder = tmp_path / form
        folder.mkdir()
        template = write(tmp_path, HEADERS[form], [f"{name}," for name in NAMES], f"{form}.txt")
        header = HEADERS[form].partition(",")[2]
        write(folder, header, [NUMBERS[form]] * 3, "a_left.txt")
        write(folder, header, [NUMBERS[form]] * 4, "b-2.txt")
        assert check_folder(folder, template) == []
        write(folder, header, [NUMBERS[form], wrong, *[NUMBERS[form]] * 2], "b-2.txt")
        (fault,) = check_folder(folder, template)
        assert (fault.kind, fault.line, fault.path.name) == ("too few fields", 3, "b-2.txt")


def test_a_folder_full_of_nan_is_checked_all_the_same(tmp_path: Path) -> None:
    names = [f"v/{frame:05d}.jpg" for frame in range(1, 40_001)]
    template = write(tmp_path, HEADERS["va"], [f"{name}," for name in names], "template.txt")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, "valence,arousal", ["nan,nan"] * len(names), "v.txt")
    (fault,) = check_folder(folder, template)
    assert (fault.kind, fault.count) == ("label not a number", len(names))


def test_folder_of_a_format_without_folders(tmp_path: Path) -> None:
    template = write(tmp_path, HEADERS["multi"], [f"{name}," for name in NAMES], "template.txt")
    with pytest.raises(TemplateError, match=r"is of multi-task, which has no folder"):
        check_folder(tmp_path, template)


# Valid files


@dataclass(frozen=True)
class Valid:
    """A valid submission and its template."""

    header: str
    videos: dict[str, list[int]]
    """Frames by video."""
    numbers: list[str]

    @property
    def names(self) -> list[str]:
        return [f"{video}/{frame:05d}.jpg" for video, frames in self.videos.items() for frame in frames]


def decimals() -> st.SearchStrategy[str]:
    whole = st.sampled_from(["-1", "-1.0", "1", "1.000", "0", "-0.0"])
    digits = st.text("0123456789", min_size=1, max_size=9)
    return whole | st.tuples(st.sampled_from(["0.", "-0."]), digits).map("".join)


def whole(most: int) -> st.SearchStrategy[str]:
    return st.integers(0, most).map(str)


FIELDS: dict[str, list[st.SearchStrategy[str]]] = {
    "expr": [whole(7)],
    "va": [decimals()] * 2,
    "au": [whole(1)] * 12,
    "multi": [decimals()] * 2 + [whole(7)] + [whole(1)] * 12,
    "compound": [whole(3)],
}
VIDEO = st.text("abcXYZ019-_. \xe9\u4e2d", min_size=1, max_size=12).filter(lambda name: name.strip() == name)


@st.composite
def valid(draw: st.DrawFn, form: str, gaps: bool = True) -> Valid:
    frames = st.integers(1, 6).map(lambda count: list(range(1, count + 1)))
    if gaps:
        frames |= st.lists(st.integers(1, 300_000), min_size=1, max_size=4, unique=True)
    videos = draw(st.dictionaries(VIDEO, frames, min_size=1, max_size=3))
    rows = sum(map(len, videos.values()))
    line = st.tuples(*FIELDS[form]).map(",".join)
    return Valid(HEADERS[form], videos, draw(st.lists(line, min_size=rows, max_size=rows)))


RANDOM = settings(max_examples=160, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.slow
@pytest.mark.parametrize("form", HEADERS)
@RANDOM
@given(data=st.data())
def test_valid_files_are_never_blamed(form: str, tmp_path: Path, data: st.DataObject) -> None:
    made = data.draw(valid(form))
    template = write(tmp_path, made.header, [f"{name}," for name in made.names], "template.txt")
    rows = [f"{name},{line}" for name, line in zip(made.names, made.numbers, strict=True)]
    assert check_predictions(write(tmp_path, made.header, rows), template) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["expr", "va", "au"])
@settings(RANDOM, max_examples=80)
@given(data=st.data())
def test_valid_folders_are_never_blamed(
    form: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    made, folder = data.draw(valid(form, gaps=False)), tmp_path_factory.mktemp("folder")
    template = write(folder.parent, made.header, [f"{name}," for name in made.names], "template.txt")
    lines = iter(made.numbers)
    for video, frames in made.videos.items():
        write(folder, made.header.partition(",")[2], [next(lines) for _ in frames], f"{video}.txt")
    assert check_folder(folder, template) == []


@pytest.mark.slow
@settings(RANDOM, max_examples=100)
@given(data=st.data())
def test_one_label_changed_in_a_valid_file_is_one_fault(tmp_path: Path, data: st.DataObject) -> None:
    made = data.draw(valid("expr"))
    template = write(tmp_path, made.header, [f"{name}," for name in made.names], "template.txt")
    rows = [f"{name},{line}" for name, line in zip(made.names, made.numbers, strict=True)]
    changed = data.draw(st.integers(0, len(rows) - 1))
    rows[changed] = f"{made.names[changed]},8"
    (fault,) = check_predictions(write(tmp_path, made.header, rows), template)
    assert (fault.kind, fault.lines, fault.count) == ("label out of range", (changed + 2,), 1)
