"""The `check` command: exit statuses, JSON, warnings, and checks without a template against real videos."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from abaw_expr.commands.main import main
from abaw_expr.data.synthetic.corpus import write_video
from submissions.checking.checker import check_predictions
from submissions.checking.faults import FAULT_KINDS, REMEDIES, WARNINGS, Fault, Verdict
from submissions.checking.videos import check_without_template
from tests.helpers.paths import SUBMISSIONS
from tests.submissions.checking import test_checker, test_formats

TEMPLATE, GOOD = SUBMISSIONS / "template.txt", SUBMISSIONS / "predictions.txt"
HEADER, *ROWS = GOOD.read_text().splitlines()
VIDEOS = ["5-60-640x360", "video7_left", "video7"]
VA = "image_location,valence,arousal"
AU = f"image_location,{test_formats.UNITS}"


def call(*arguments: object) -> int:
    return main(["check", *map(str, arguments)])


def called_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = call(*arguments, "--json")
    return status, json.loads(capsys.readouterr().out)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def kinds(findings: list[Fault]) -> list[tuple[str, int]]:
    return [(finding.kind, finding.count) for finding in findings]


# Verdicts


def test_json_of_a_clean_file(capsys: pytest.CaptureFixture[str]) -> None:
    status, verdict = called_json(capsys, GOOD, "--template", TEMPLATE)
    assert status == 0
    assert verdict == {
        "file": str(GOOD),
        "verdict": "clean",
        "summary": "clean",
        "findings": [],
        "not_checked": [],
    }


def test_json_of_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.txt", HEADER, ROWS[0], f"{ROWS[1]}.0", f"{ROWS[2]}.0", *ROWS[3:], ROWS[0])
    status, verdict = called_json(capsys, path, "--template", TEMPLATE)
    assert (status, verdict["verdict"], verdict["summary"]) == (1, "faults", "2 kinds of fault")
    floats, twice = verdict["findings"]
    assert floats == {
        "kind": "label not whole",
        "severity": "fault",
        "file": str(path),
        "lines": [3, 4],
        "count": 2,
        "files": 1,
        "found": repr(f"{ROWS[1]}.0"),
        "expected": "a whole number 0..7",
        "remedy": FAULT_KINDS["label not whole"],
    }
    assert (twice["kind"], twice["lines"]) == ("duplicate row", [24])


def test_json_of_what_could_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, verdict = called_json(capsys, tmp_path / "none.txt", "--template", TEMPLATE)
    assert (status, verdict["verdict"]) == (2, "could not run")
    assert "none.txt: cannot be read" in verdict["error"]


@pytest.mark.parametrize("options", [[], ["--media", "."], ["--template", "t", "--videos", "v"]])
def test_options_that_do_not_go_together(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(GOOD, *options) == 2
    assert "check needs --template, or without one --videos [--media]" in capsys.readouterr().err


# Warnings


def long_file(tmp_path: Path, header: str, lines: list[str]) -> list[Fault]:
    names = [f"v/{frame:05d}.jpg" for frame in range(1, len(lines) + 1)]
    template = write(tmp_path / "template.txt", header, *(f"{name}," for name in names))
    path = tmp_path / "predictions.txt"
    return check_predictions(
        write(path, header, *(f"{n},{line}" for n, line in zip(names, lines, strict=True))), template
    )


def dealt(shares: list[int], rows: int = 2000) -> list[str]:
    """Classes in these shares, in percent."""
    return [str(label) for label, share in enumerate(shares) for _ in range(share * rows // 100)]


NOISE = np.random.default_rng(0)
PREDICTED: dict[str, tuple[str, list[str], list[tuple[str, int]]]] = {
    "as in validation": (HEADER, dealt([29, 2, 2, 3, 12, 9, 5, 38]), []),
    "as many of each": (HEADER, dealt([13, 13, 13, 13, 12, 12, 12, 12]), []),
    "much corrected for the prior": (HEADER, dealt([10, 12, 12, 12, 15, 12, 15, 12]), []),
    "rare classes left out": (HEADER, dealt([40, 0, 0, 0, 15, 10, 0, 35]), []),
    "argmin": (HEADER, dealt([1, 25, 40, 30, 1, 1, 1, 1]), [("class histogram", 1)]),
    "classes reversed": (HEADER, dealt([38, 5, 9, 12, 3, 2, 2, 29]), []),
    "nearly one class": (HEADER, dealt([2, 0, 0, 0, 0, 0, 0, 98]), [("constant predictions", 1)]),
    "one class": (HEADER, ["3"] * 1000, [("constant predictions", 1)]),
    "one class on few rows": (HEADER, ["3"] * 999, []),
    "valence stuck": (
        VA,
        [f"{0.2 + 0.001 * x:.5f},{x / 4:.3f}" for x in NOISE.uniform(-1, 1, 2000)],
        [("constant", 1)],
    ),
    "calm": (VA, [f"{0.2 + 0.05 * x:.5f},{x / 4:.3f}" for x in NOISE.uniform(-1, 1, 2000)], []),
    "no unit ever": (AU, [",".join(["0"] * 12)] * 2000, [("constant predictions", 1)]),
    "some units never": (AU, [",".join([str(i % 2), *["0"] * 11]) for i in range(2000)], []),
}


@pytest.mark.parametrize(("header", "lines", "expected"), PREDICTED.values(), ids=PREDICTED)
def test_warnings_do_not_cry_wolf(header: str, lines: list[str], expected: list, tmp_path: Path) -> None:
    found = long_file(tmp_path, header, lines)
    assert [(finding.kind[:8], finding.count) for finding in found] == [(kind[:8], n) for kind, n in expected]
    assert all(finding.severity == "warning" for finding in found)


def test_warnings_leave_the_exit_status_at_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finding,) = long_file(tmp_path, HEADER, ["3"] * 1000)
    assert finding.found == "expression 3 on 100.0% of rows"
    path = tmp_path / "predictions.txt"
    assert call(path, "--template", tmp_path / "template.txt") == 0
    text = capsys.readouterr().out
    assert f"{path}: warning: constant predictions; found expression 3 on 100.0% of rows" in text
    assert text.endswith(f"{path}: clean, 1 warning\n")


def test_predictions_as_template_are_warned_of(tmp_path: Path) -> None:
    (finding,) = check_predictions(GOOD, write(tmp_path / "other.txt", HEADER, *ROWS))
    assert (finding.kind, finding.path.name, finding.found) == (
        "filled template",
        "other.txt",
        "labels that differ, '7' and '2'",
    )
    assert Verdict(GOOD, [finding]).clean
    dummies = [f"{row.partition(',')[0]},0" for row in ROWS]
    assert check_predictions(GOOD, write(tmp_path / "dummies.txt", HEADER, *dummies)) == []


# Without a template

WITHOUT: dict[str, tuple[list[str], dict[str, int], list[tuple[str, int]]]] = {
    "as many rows as frames": (ROWS, {"5-60-640x360": 11, "video7_left": 8, "video7": 3}, []),
    "one more": (ROWS, {"5-60-640x360": 10, "video7_left": 7, "video7": 2}, []),
    "three less": (ROWS, {"5-60-640x360": 14, "video7_left": 7, "video7": 3}, [("unusual row count", 1)]),
    "frames unknown": (ROWS, {}, []),
    "some frames unknown": (ROWS, {"video7": 3}, []),
    "many rows too few": (ROWS, {"5-60-640x360": 20, "video7_left": 8, "video7": 3}, [("missing row", 9)]),
    "many rows too many": (ROWS, {"5-60-640x360": 4, "video7_left": 8, "video7": 3}, [("surplus row", 7)]),
    "a row missing in the middle": (ROWS[:4] + ROWS[5:], {}, [("missing row", 1)]),
    "a video missing": (ROWS[:11] + ROWS[19:], {"video7_left": 8}, [("missing row", 8)]),
    "a video missing, frames unknown": (ROWS[:11] + ROWS[19:], {}, [("missing row", 1)]),
    "another order of videos": (ROWS[11:] + ROWS[:11], {}, []),
    "another order of frames": ([ROWS[1], ROWS[0], *ROWS[2:]], {}, [("row order", 2)]),
    "a video misspelled": ([row.replace("x360", "X360") for row in ROWS], {}, [("video name", 11)]),
    "right for left": ([row.replace("_left", "_right") for row in ROWS], {"video7": 3}, [("left and right", 8)]),
    "a label": ([f"{ROWS[0]}.0", *ROWS[1:]], {}, [("label not whole", 1)]),
    "a video of another list": ([*ROWS, "holiday/00001.jpg,3"], {}, [("video name", 1)]),
}


@pytest.mark.parametrize(("rows", "frames", "expected"), WITHOUT.values(), ids=WITHOUT)
def test_without_a_template(
    rows: list[str], frames: dict[str, int], expected: list[tuple[str, int]], tmp_path: Path
) -> None:
    verdict = check_without_template(write(tmp_path / "p.txt", HEADER, *rows), VIDEOS, frames)
    assert kinds(list(verdict.findings)) == expected
    assert "the order of the videos" in verdict.unchecked


@pytest.mark.parametrize("header", [HEADER.lower(), HEADER.replace("Fear,", ""), HEADER.replace(",", ", ")])
def test_without_a_template_the_header_is_known_all_the_same(header: str, tmp_path: Path) -> None:
    verdict = check_without_template(write(tmp_path / "p.txt", header, *ROWS), VIDEOS, {})
    (finding,) = verdict.findings
    assert (finding.line, finding.expected) == (1, repr(HEADER))


def test_without_a_template_or_header_the_numbers_say_the_format(tmp_path: Path) -> None:
    rows = [f"{row.partition(',')[0]},0.5,0.5" for row in ROWS]
    (finding,) = check_without_template(write(tmp_path / "p.txt", *rows), VIDEOS, {}).findings
    assert (finding.kind, finding.expected) == ("no header", repr(VA))


def test_folder_without_a_template() -> None:
    folder = SUBMISSIONS / "per_video"
    assert check_without_template(folder, VIDEOS, {"video7": 3}).findings == []
    (finding,) = check_without_template(folder, VIDEOS, {"video7": 30}).findings
    assert (finding.kind, finding.found, finding.expected) == ("row count", "3 lines of numbers", "30")


def film(path: Path, frames: int) -> None:
    write_video(path, Fraction(10), (np.zeros((32, 32, 3), np.uint8) for _ in range(frames)), None)


def test_frames_are_counted_in_the_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film(tmp_path / "media" / "batch1" / "5-60-640x360.mp4", 10)
    film(tmp_path / "media" / "batch2" / "video7.mp4", 8)
    names = tmp_path / "list.txt"
    names.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*VIDEOS, "", ""]).encode())
    command = (GOOD, "--videos", names, "--media", tmp_path / "media")
    status, verdict = called_json(capsys, *command)
    # Two people in a film of 8 frames have as many rows each; five are too few for one of them.
    assert (status, verdict["summary"]) == (1, "1 kind of fault")
    (missing,) = verdict["findings"]
    assert (missing["kind"], missing["lines"], missing["count"]) == ("missing row", [24], 5)
    assert verdict["not_checked"] == [
        "the order of the videos",
        "the number of rows of each video, closer than -3 to +2 of its frames",
    ]
    assert call(*command) == 1
    assert f"{GOOD}: not checked without a template: the order of the videos\n" in capsys.readouterr().out


def test_a_broken_video_is_named_and_stepped_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "video7.mp4", "no film")
    names = write(tmp_path / "list.txt", *VIDEOS)
    assert call(GOOD, "--videos", names, "--media", tmp_path) == 0
    shown = capsys.readouterr()
    assert "video7.mp4: cannot be read" in shown.err
    assert "the rows of 3 of 3 videos, whose number of frames is not known" in shown.out


def test_a_list_that_is_none_and_media_without_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(GOOD, "--videos", TEMPLATE) == 2
    assert f"{TEMPLATE}:1: is not the name of a video" in capsys.readouterr().err
    names = write(tmp_path / "list.txt", *VIDEOS)
    assert call(GOOD, "--videos", names, "--media", tmp_path) == 2
    assert "holds no videos" in capsys.readouterr().err


def test_every_kind_is_met_by_some_test() -> None:
    tables = [*test_checker.MUTATIONS.values(), *test_checker.FOLDER_MUTATIONS.values()]
    found = {kind for _, expected in tables for kind, _, _ in expected}
    found |= {kind for _, _, kind in test_formats.LINES.values()}
    found |= {"missing file", "surplus file", "UTF-16", "not UTF-8"}  # Each has a test of its own.
    assert found == set(FAULT_KINDS)
    assert set(WARNINGS) == {"constant predictions", "class histogram", "filled template", "unusual row count"}
    assert set(REMEDIES) == set(FAULT_KINDS) | set(WARNINGS)
