"""The checker finds every corruption of a good submission, each as one fault of the right kind and line."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from abaw_expr.errors import PredictionsError, TemplateError
from abaw_expr.tasks.task import EXPR, VA
from submissions.checking.checker import check_folder, check_predictions
from submissions.checking.faults import REMEDIES, Fault
from tests.helpers.paths import SUBMISSIONS

TEMPLATE = SUBMISSIONS / "template.txt"
GOOD = (SUBMISSIONS / "predictions.txt").read_text()
HEADER = EXPR.submission_header
ROWS = GOOD.splitlines()[1:]

Mutation = Callable[[str], str]


def swap(old: str, new: str) -> Mutation:
    """Replaces the one occurrence of `old`."""

    def mutate(text: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return mutate


def header(new: str) -> Mutation:
    return swap(HEADER, new)


def row(line: int, new: str) -> Mutation:
    """Replaces a line, `{row}` being the whole of it, `{name}` and `{label}` its fields."""

    def mutate(text: str) -> str:
        lines = text.splitlines()
        name, label = lines[line - 1].split(",")
        lines[line - 1] = new.format(row=lines[line - 1], name=name, label=label)
        return "\n".join(lines) + "\n"

    return mutate


def without(*lines: int) -> Mutation:
    return lambda text: "".join(f"{line}\n" for number, line in enumerate(text.splitlines(), 1) if number not in lines)


def rearranged(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


MUTATIONS: dict[str, tuple[Mutation, list[tuple[str, int | None, int]]]] = {
    "byte-order mark": (lambda text: "\ufeff" + text, [("byte-order mark", 1, 1)]),
    "CRLF": (lambda text: text.replace("\n", "\r\n"), [("line ending", 1, 23)]),
    "CRLF on one line": (row(5, "{row}\r"), [("line ending", 5, 1)]),
    "old Mac's line endings": (lambda text: text.replace("\n", "\r"), [("line ending", 1, 23)]),
    "no last newline": (lambda text: text.removesuffix("\n"), [("no last newline", 23, 1)]),
    "blank line": (row(4, "{row}\n"), [("blank line", 5, 1)]),
    "blank line of spaces": (row(4, "{row}\n  "), [("blank line", 5, 1)]),
    "blank first line": (lambda text: "\n" + text, [("blank line", 1, 1)]),
    "blank last line": (lambda text: text + "\n", [("blank line", 24, 1)]),
    "no header": (without(1), [("no header", 1, 1)]),
    "header twice": (lambda text: f"{HEADER}\n{text}", [("header again", 2, 1)]),
    "header quoted as a whole": (header(f'"{HEADER}"'), [("quotes", 1, 1)]),
    "header quoted a name": (header('"' + HEADER.replace(",", '","') + '"'), [("quotes", 1, 1)]),
    "header spaced": (header(HEADER.replace(",", ", ")), [("spaces", 1, 1)]),
    "header with a space at its end": (header(HEADER + " "), [("spaces", 1, 1)]),
    "header with a comma at its end": (header(HEADER + ","), [("trailing comma", 1, 1)]),
    "header with tabs": (header(HEADER.replace(",", "\t")), [("separator", 1, 1)]),
    "header in small letters": (header(HEADER.lower()), [("header case", 1, 1)]),
    "header in another order": (
        header(HEADER.replace("Anger", "X").replace("Fear", "Anger").replace("X", "Fear")),
        [("header order", 1, 1)],
    ),
    "header of the 3rd edition": (header(EXPR.header), [("header names", 1, 1)]),
    "header of two columns": (header("image_location,label"), [("header names", 1, 1)]),
    "header quoted, spaced": (
        header('"' + HEADER.replace(",", '", "') + '"'),
        [("quotes", 1, 1), ("spaces", 1, 1)],
    ),
    "row quoted": (row(7, '"{name}","{label}"'), [("quotes", 7, 1)]),
    "row with a semicolon": (row(7, "{name};{label}"), [("separator", 7, 1)]),
    "row with a tab": (row(7, "{name}\t{label}"), [("separator", 7, 1)]),
    "row with a space for a comma": (row(7, "{name} {label}"), [("separator", 7, 1)]),
    "all rows with a space": (lambda text: text.replace(".jpg,", ".jpg, "), [("spaces", 2, 22)]),
    "row with a space at its end": (row(7, "{row} "), [("spaces", 7, 1)]),
    "row with a comma at its end": (row(7, "{row},"), [("trailing comma", 7, 1)]),
    "no row at all": (row(7, "{row}\nthe end"), [("not a row", 8, 1)]),
    "empty label": (row(7, "{name},"), [("empty label", 7, 1)]),
    "no comma, no label": (row(7, "{name}"), [("empty label", 7, 1)]),
    "label of a class name": (row(7, "{name},Fear"), [("class name", 7, 1)]),
    "label with a decimal": (row(7, "{row}.0"), [("label not whole", 7, 1)]),
    "label missing in a table": (row(7, "{name},nan"), [("label not a number", 7, 1)]),
    "label in other digits": (row(7, "{name},\u0663"), [("label not a number", 7, 1)]),
    "label in words": (row(7, "{name},maybe"), [("label not a number", 7, 1)]),
    "label with an exponent": (row(7, "{name},3e0"), [("label not whole", 7, 1)]),
    "label with a plus": (row(7, "{name},+3"), [("label spelling", 7, 1)]),
    "one-hot": (row(7, "{name},0,0,0,1,0,0,0,0"), [("column per class", 7, 1)]),
    "all one-hot": (lambda text: re.sub(",[0-7]\n", ",0,0,0,1,0,0,0,0\n", text), [("column per class", 2, 22)]),
    "two labels": (row(7, "{row},3"), [("too many fields", 7, 1)]),
    "label -1": (row(7, "{name},-1"), [("not-annotated label", 7, 1)]),
    "label 8": (row(7, "{name},8"), [("label out of range", 7, 1)]),
    "label -2": (row(7, "{name},-2"), [("label out of range", 7, 1)]),
    "label 03": (row(7, "{name},03"), [("label spelling", 7, 1)]),
    "label beyond all integers": (row(7, "{name}," + "9" * 6000), [("label out of range", 7, 1)]),
    "one row too many": (row(12, "{row}\n5-60-640x360/00012.jpg,1"), [("surplus row", 13, 1)]),
    "wrong padding": (row(7, "5-60-640x360/6.jpg,1"), [("row name", 7, 1)]),
    "wrong padding everywhere": (lambda text: text.replace("/000", "/0"), [("row name", 2, 22)]),
    "folders before the video": (row(7, "cropped_aligned/{row}"), [("row name", 7, 1)]),
    "backslash": (row(7, "5-60-640x360\\00006.jpg,1"), [("row name", 7, 1)]),
    "wrong ending": (row(7, "5-60-640x360/00006.png,1"), [("row name", 7, 1)]),
    "wrong video name": (swap("5-60-640x360/00006", "5-60-640X360/00006"), [("video name", 7, 1)]),
    "video of another challenge": (row(12, "{row}\nholiday/00001.jpg,1"), [("video name", 13, 1)]),
    "right for left": (lambda text: text.replace("video7_left", "video7_right"), [("left and right", 13, 8)]),
    "left for nobody": (lambda text: re.sub(r"video7/", "video7_left/", text), [("left and right", 21, 3)]),
    "left and right swapped": (
        lambda text: text.replace("video7_left/", "x/").replace("video7/", "video7_left/").replace("x/", "video7/"),
        [("left and right", 16, 5)],
    ),
    "missing first row": (without(2), [("missing row", 2, 1)]),
    "missing row": (without(3), [("missing row", 3, 1)]),
    "missing rows": (without(3, 4, 20), [("missing row", 3, 3)]),
    "missing video": (without(*range(13, 21)), [("missing row", 13, 8)]),
    "missing last row": (without(23), [("missing row", 23, 1)]),
    "duplicate row": (row(6, "{row}\n{row}"), [("duplicate row", 7, 1)]),
    "duplicate row with another label": (row(6, "{row}\n{name},5"), [("duplicate row", 7, 1)]),
    "file twice": (lambda text: text + "".join(f"{row}\n" for row in ROWS), [("duplicate row", 24, 22)]),
    "two rows swapped": (lambda _: rearranged(*ROWS[:3], ROWS[4], ROWS[3], *ROWS[5:]), [("row order", 5, 2)]),
    "sorted by name": (lambda _: rearranged(*sorted(ROWS)), [("row order", 13, 11)]),
    "last row first": (lambda _: rearranged(ROWS[-1], *ROWS[:-1]), [("row order", 2, 22)]),
    "missing row and another order": (
        lambda _: rearranged(ROWS[1], *ROWS[3:], ROWS[2]),
        [("missing row", 2, 1), ("row order", 3, 20)],
    ),
    "pandas' index": (
        lambda text: "".join(f"{i - 1 if i else ''},{line}\n" for i, line in enumerate(text.splitlines())),
        [("extra first column", 1, 23)],
    ),
    "index with a name": (
        lambda text: "".join(f"{i or 'frame'},{line}\n" for i, line in enumerate(text.splitlines())),
        [("extra first column", 1, 23)],
    ),
    "semicolons throughout": (lambda text: text.replace(",", ";"), [("separator", 1, 23)]),
    "quotes throughout": (
        lambda text: "".join('"' + line.replace(",", '","') + '"\n' for line in text.splitlines()),
        [("quotes", 1, 23)],
    ),
    "Windows' text mode over CRLF": (lambda text: text.replace("\n", "\r\r\n"), [("line ending", 1, 23)]),
    "header of VA": (header(VA.submission_header), [("another challenge", 1, 1), ("too few fields", 2, 22)]),
    "too much padding": (row(7, "5-60-640x360/000006.jpg,1"), [("row name", 7, 1)]),
    "no ending": (row(7, "5-60-640x360/00006,1"), [("row name", 7, 1)]),
    "frame 0": (row(2, "5-60-640x360/00000.jpg,1\n{row}"), [("surplus row", 2, 1)]),
    "counted from 0": (
        lambda text: re.sub(r"/(\d+)", lambda match: f"/{int(match[1]) - 1:05d}", text),
        [("frames from 0", 2, 3)],
    ),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "predictions.txt"
    path.write_bytes(text.encode())
    return path


def summary(faults: list[Fault]) -> list[tuple[str, int | None, int]]:
    return [(fault.kind, fault.line, fault.count) for fault in faults]


def check(folder: Path, mutate: Mutation) -> list[Fault]:
    return check_predictions(write(folder, mutate(GOOD)), TEMPLATE)


@pytest.mark.parametrize(("mutate", "expected"), MUTATIONS.values(), ids=MUTATIONS)
def test_corruption_is_found(mutate: Mutation, expected: list[tuple[str, int | None, int]], tmp_path: Path) -> None:
    assert summary(check(tmp_path, mutate)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [mutate for mutate, _ in MUTATIONS.values()], ids=MUTATIONS)
def test_findings_do_not_depend_on_blocks(mutate: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file read in pieces of a few bytes is what it is read at once."""
    whole = check(tmp_path, mutate)
    for size in (3, 40, 97):
        monkeypatch.setattr("submissions.checking.text.BLOCK", size)
        assert check(tmp_path, mutate) == whole


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_one_fault_and_the_rest_is_checked_all_the_same(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    path.write_bytes(row(7, "{name},8")(GOOD).encode(encoding))
    assert summary(check_predictions(path, TEMPLATE)) == [("UTF-16", 1, 1), ("label out of range", 7, 1)]


def test_a_name_in_another_encoding_is_one_fault(tmp_path: Path) -> None:
    template, path = tmp_path / "template.txt", tmp_path / "predictions.txt"
    template.write_text(f"{HEADER}\ncaf\xe9/00001.jpg,\ncaf\xe9/00002.jpg,\n", encoding="utf-8")
    path.write_text(f"{HEADER}\ncaf\xe9/00001.jpg,0\ncaf\xe9/00002.jpg,0\n", encoding="latin-1")
    (fault,) = check_predictions(path, template)
    assert (fault.kind, fault.lines, fault.found) == ("not UTF-8", (2, 3), r"'caf\\xe9/00001.jpg,0'")


def test_good_file_is_clean() -> None:
    assert check_predictions(SUBMISSIONS / "predictions.txt", TEMPLATE) == []


def test_example_with_dummy_labels_serves_as_template() -> None:
    assert check_predictions(SUBMISSIONS / "predictions.txt", SUBMISSIONS / "example.txt") == []


def test_template_saved_by_windows_serves_too(tmp_path: Path) -> None:
    template = tmp_path / "template.txt"
    template.write_bytes(b"\xef\xbb\xbf" + TEMPLATE.read_bytes().rstrip().replace(b"\n", b"\r\n"))
    assert check_predictions(SUBMISSIONS / "predictions.txt", template) == []


def test_all_faults_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    def ruin(text: str) -> str:
        text = "\ufeff" + without(23)(row(9, "{name},")(row(7, "{name},8")(header(HEADER.lower())(text))))
        return text.replace("\n", "\r\n").removesuffix("\r\n")

    kinds = [fault.kind for fault in check(tmp_path, ruin)]
    assert sorted(kinds[:3]) == ["byte-order mark", "header case", "line ending"]
    assert kinds[3:] == ["label out of range", "empty label", "no last newline", "missing row"]


def test_a_kind_is_one_group_with_its_first_lines(tmp_path: Path) -> None:
    (fault,) = check(tmp_path, lambda text: text.replace(".jpg,", ".jpg,1"))
    assert (fault.kind, fault.count, fault.lines) == ("label out of range", 22, (2, 3, 4, 5, 6))
    assert "(22 times, lines 2, 3, 4, 5, 6, ...)" in str(fault)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wrong padding", "'5-60-640x360/00006.jpg'"),
        ("right for left", "'video7_left/00001.jpg'"),
        ("wrong video name", "'5-60-640x360/00006.jpg'"),
        ("left and right swapped", "'video7_left/00004.jpg'"),
        ("counted from 0", "'5-60-640x360/00011.jpg'"),
        ("missing rows", "also 5-60-640x360/00002.jpg, 5-60-640x360/00003.jpg, video7_left/00008.jpg"),
        ("two rows swapped", "'5-60-640x360/00004.jpg'"),
        ("duplicate row", "the row once; it is on line 6"),
        ("label 8", "a whole number 0..7"),
    ],
)
def test_fault_says_what_was_expected(name: str, expected: str, tmp_path: Path) -> None:
    (fault,) = check(tmp_path, MUTATIONS[name][0])
    assert fault.expected == expected
    assert str(fault).endswith(f"; expected {expected}. {REMEDIES[fault.kind]}")


def test_missing_rows_are_counted(tmp_path: Path) -> None:
    (fault,) = check(tmp_path, without(3, 4, 20))
    assert fault.found == "19 of the template's 22 rows"


def test_row_that_exists_is_not_claimed_by_a_misspelled_one(tmp_path: Path) -> None:
    faults = check(tmp_path, lambda text: without(9)(row(7, "5-60-640x360/1.jpg,1\n{row}")(text)))
    assert summary(faults) == [("row name", 7, 1), ("missing row", 9, 1)]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n \r\n", "is empty"),
    ],
)
def test_no_text_to_check(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    path.write_bytes(content)
    with pytest.raises(PredictionsError, match=rf"predictions\.txt: {match}"):
        check_predictions(path, TEMPLATE)


def test_no_file_to_check(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"absent\.txt: cannot be read"):
        check_predictions(tmp_path / "absent.txt", TEMPLATE)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        (f"{HEADER}\n", "has no rows"),
        ("image_location,label\nv/00001.jpg,\n", ":1: has another header; found 'image_location,label'"),
        (f"\n{HEADER}\nv/00001.jpg,\n", ":1: has another header"),
        (f"{HEADER}\nv/00001.jpg,\n\nv/00002.jpg,\n", ":3: is not a row of a template; found ''"),
        (f"{HEADER}\nv/00000.jpg,\n", ":2: is not a row of a template"),
        (f"{HEADER}\nv/00001.jpg,\nv/1.jpg,\n", "a row twice, on lines 2 and 3"),
        (f"{HEADER}\nv/00001.jpg,\nv/2.txt,\n", ":3: is not a row of a template; found 'v/2.txt'"),
        (f"{HEADER}\nv/00001.jpg,\nv/00001.jpg,\n", "a row twice"),
    ],
)
def test_template_that_is_none(text: str, match: str, tmp_path: Path) -> None:
    template = tmp_path / "template.txt"
    template.write_text(text)
    with pytest.raises(TemplateError, match=match):
        check_predictions(SUBMISSIONS / "predictions.txt", template)


def test_template_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"absent\.txt: cannot be read"):
        check_predictions(SUBMISSIONS / "predictions.txt", tmp_path / "absent.txt")


def per_video(folder: Path, mutations: dict[str, Mutation]) -> Path:
    """A copy of the golden folder with some files changed."""
    for path in (SUBMISSIONS / "per_video").iterdir():
        text = mutations.get(path.stem, str)(path.read_text())
        (folder / path.name).write_bytes(text.encode())
    return folder


FOLDER_MUTATIONS: dict[str, tuple[dict[str, Mutation], list[tuple[str, int | None, int]]]] = {
    "byte-order mark": ({"video7": lambda text: "\ufeff" + text}, [("byte-order mark", 1, 1)]),
    "CRLF": ({"video7": lambda text: text.replace("\n", "\r\n")}, [("line ending", 1, 4)]),
    "no last newline": ({"video7": str.rstrip}, [("no last newline", 4, 1)]),
    "no header": ({"video7": without(1)}, [("no header", 1, 1)]),
    "header of predictions.txt": ({"video7": swap(EXPR.header, HEADER)}, [("extra first column", 1, 1)]),
    "header in small letters": ({"video7": str.lower}, [("header case", 1, 1)]),
    "one label too few": ({"video7": without(4)}, [("row count", None, 1)]),
    "one label too many": ({"video7": lambda text: text + "1\n"}, [("row count", None, 1)]),
    "header of VA": ({"video7": swap(EXPR.header, VA.header)}, [("another challenge", 1, 1), ("too few fields", 2, 3)]),
    "label -1": ({"video7": lambda text: without(4)(text) + "-1\n"}, [("not-annotated label", 4, 1)]),
    "label 8": ({"video7": lambda text: without(4)(text) + "8\n"}, [("label out of range", 4, 1)]),
    "probabilities": ({"video7": lambda text: without(4)(text) + "0.5,0.5\n"}, [("too many fields", 4, 1)]),
    "one-hot": ({"video7": lambda text: without(4)(text) + "0,0,0,0,0,0,1,0\n"}, [("column per class", 4, 1)]),
    "pandas' index": (
        {"video7": lambda text: "".join(f"{i - 1 if i else ''},{line}\n" for i, line in enumerate(text.split()))},
        [("extra first column", 1, 4)],
    ),
    "blank line": ({"video7": lambda text: text + "\n"}, [("blank line", 5, 1)]),
    "space": ({"video7": lambda text: without(4)(text) + "1 \n"}, [("spaces", 4, 1)]),
}


@pytest.mark.parametrize(("mutations", "expected"), FOLDER_MUTATIONS.values(), ids=FOLDER_MUTATIONS)
def test_corruption_in_a_folder_is_found(
    mutations: dict[str, Mutation], expected: list[tuple[str, int | None, int]], tmp_path: Path
) -> None:
    faults = check_folder(per_video(tmp_path, mutations), TEMPLATE)
    assert summary(faults) == expected
    assert faults[0].path == tmp_path / "video7.txt"


def test_good_folder_is_clean() -> None:
    assert check_folder(SUBMISSIONS / "per_video", TEMPLATE) == []


def test_missing_and_surplus_files(tmp_path: Path) -> None:
    (per_video(tmp_path, {}) / "video7_left.txt").rename(tmp_path / "video7_lefd.txt")
    missing, surplus = check_folder(tmp_path, TEMPLATE)
    assert (missing.kind, missing.found, missing.expected) == ("missing file", "2 of 3 files", "also video7_left.txt")
    assert (surplus.kind, surplus.found, surplus.expected) == (
        "surplus file",
        "video7_lefd.txt",
        "likely video7_left.txt",
    )


def test_one_fault_a_kind_over_all_files(tmp_path: Path) -> None:
    (fault,) = check_folder(per_video(tmp_path, {"video7": str.lower, "video7_left": str.lower}), TEMPLATE)
    assert (fault.kind, fault.count, fault.files) == ("header case", 2, 2)
    assert "(2 times in 2 files)" in str(fault)


def test_folder_that_is_none() -> None:
    with pytest.raises(PredictionsError, match=r"absent: is not a folder"):
        check_folder(SUBMISSIONS / "absent", TEMPLATE)


def test_checker_loads_no_heavy_library() -> None:
    code = "import sys, submissions.checking.checker; print(sorted({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=SUBMISSIONS.parents[2], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"
