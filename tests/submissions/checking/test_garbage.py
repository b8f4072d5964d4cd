"""What is no text, has no end or is no file at all is refused with a clear error, without being held in memory."""

import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from abaw_expr.errors import PredictionsError, TemplateError, UserError
from submissions.checking.checker import check_folder, check_predictions
from submissions.checking.videos import check_without_template, read_list
from tests.helpers.paths import SUBMISSIONS

TEMPLATE, GOOD = SUBMISSIONS / "template.txt", SUBMISSIONS / "predictions.txt"
HEADER = GOOD.read_bytes().partition(b"\n")[0] + b"\n"
MOST_MEMORY = 24 << 20
"""Bytes that a check may hold at once, whatever it is given: some blocks and their lines."""


def zeros(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def zeros_after_rows(path: Path) -> None:
    path.write_bytes(GOOD.read_bytes())
    os.truncate(path, 1 << 30)


def random_bytes(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(4 << 20))


def bytes_without_zeros(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(4 << 20).replace(b"\0", b"\x01"))


def one_line(path: Path) -> None:
    with open(path, "wb") as file:
        for _ in range(200):
            file.write(b"a" * (1 << 20))


def prose(path: Path) -> None:
    path.write_bytes(b"It was the best of times, it was the worst of times\n" * 20_000)


def prose_after_header(path: Path) -> None:
    path.write_bytes(HEADER + b"It was the best of times\n" * 20_000)


def numbers(path: Path) -> None:
    path.write_bytes(HEADER + b"0.125,0.875,17\n" * 20_000)


def newlines(path: Path) -> None:
    path.write_bytes(HEADER + b"\n" * (8 << 20))


def long_lines(path: Path) -> None:
    """What a careless search for spaces, commas or slashes takes quadratic time over."""
    path.write_bytes(
        b"".join(b"a" + letter * 7000 + b"b\n" + letter * 7000 + b"\n" for letter in map(bytes, zip(b' ,;\t/"0.' * 20)))
    )


def spaces(path: Path) -> None:
    path.write_bytes(b" " * (8 << 20))


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as out:
        out.write(GOOD, "predictions.txt")


def gzipped(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(256)))


def program(path: Path) -> None:
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))


def sound(path: Path) -> None:
    """MPEG sound starts like the mark of UTF-16."""
    path.write_bytes(b"\xff\xfe" + random.Random(0).randbytes(1 << 20))


GARBAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.touch(), "is empty"),
    "blanks": (lambda path: path.write_bytes(b" \r\n\t\n"), "is empty"),
    "a mark alone": (lambda path: path.write_bytes(b"\xff\xfe"), "is empty"),
    "8 MiB of spaces": (spaces, "a line has more than 8,192 bytes"),
    "1 GiB of zeros": (zeros, ":1: is not text: it holds zero bytes"),
    "1 GiB of zeros after rows": (zeros_after_rows, ":24: is not text: it holds zero bytes"),
    "random bytes": (random_bytes, "is not text: it holds zero bytes"),
    "program": (program, "is not text: it holds zero bytes"),
    "200 MiB without a newline": (one_line, ":1: is not text: a line has more than 8,192 bytes"),
    "ZIP": (archive, "is a ZIP archive, not text"),
    "gzip": (gzipped, "is a gzip archive, not text"),
    "pipe": (os.mkfifo, "is not a regular file; found 'a pipe'"),
    "folder": (os.mkdir, "is not a regular file; found 'a folder'"),
    "absent": (lambda path: None, r"cannot be read \(No such file or directory\)"),
    "loop": (lambda path: path.symlink_to(path), "cannot be read"),
}
LONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "bytes without zeros": (bytes_without_zeros, "is not a predictions file: .* lines are not rows"),
    "prose": (prose, ":2: is not a predictions file: .* lines are not rows; found 'It was"),
    "prose after the header": (prose_after_header, ":2: is not a predictions file: .* lines are not rows"),
    "numbers after the header": (numbers, ":2: is not a predictions file: .* lines are not rows"),
    "long lines": (long_lines, "is not a predictions file: .* lines are not rows"),
    "newlines after the header": (newlines, "is not a predictions file: .* lines are not rows"),
    "sound": (sound, "is not text|is not a predictions file"),
}


def refused(error: type[UserError], match: str | None, check: Callable[[], object]) -> None:
    """Asserts an error, and how much memory it takes to get there."""
    tracemalloc.start()
    try:
        with pytest.raises(error, match=match):
            check()
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "match"), [*GARBAGE.values(), *LONG.values()], ids=[*GARBAGE, *LONG])
def test_garbage_is_no_submission(make: Callable[[Path], object], match: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    make(path)
    refused(PredictionsError, match, lambda: check_predictions(path, TEMPLATE))


@pytest.mark.parametrize(("make", "match"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_no_template(make: Callable[[Path], object], match: str, tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    make(path)
    refused(TemplateError, match.replace(":24:", ""), lambda: check_predictions(GOOD, path))
    refused(TemplateError, match.replace(":24:", ""), lambda: check_folder(SUBMISSIONS / "per_video", path))


@pytest.mark.parametrize("make", [make for make, _ in LONG.values()], ids=LONG)
def test_text_is_no_template_either(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    make(path)
    refused(TemplateError, None, lambda: check_predictions(GOOD, path))


@pytest.mark.parametrize(("make", "match"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_no_list_of_videos(make: Callable[[Path], object], match: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    make(path)
    refused(TemplateError, match, lambda: read_list(path))


@pytest.mark.slow
@pytest.mark.parametrize("make", [make for make, _ in LONG.values()], ids=LONG)
def test_garbage_is_no_submission_without_a_template(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    make(path)
    refused(PredictionsError, None, lambda: check_without_template(path, ["video7"], {"video7": 3}))


@pytest.mark.parametrize(("make", "match"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_among_the_files_of_a_folder(make: Callable[[Path], object], match: str, tmp_path: Path) -> None:
    for path in (SUBMISSIONS / "per_video").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "video7.txt").unlink()
    make(tmp_path / "video7.txt")
    if match.startswith("cannot be read") and not (tmp_path / "video7.txt").is_symlink():
        assert [fault.kind for fault in check_folder(tmp_path, TEMPLATE)] == ["missing file"]
    elif ":24:" not in match:
        refused(PredictionsError, match, lambda: check_folder(tmp_path, TEMPLATE))


@pytest.mark.parametrize("device", [Path("/dev/zero"), Path("/dev/null")], ids=str)
def test_devices_are_not_opened(device: Path) -> None:
    refused(PredictionsError, "found 'a device'", lambda: check_predictions(device, TEMPLATE))
    refused(TemplateError, "found 'a device'", lambda: check_predictions(GOOD, device))


@pytest.mark.parametrize("make", [bytes_without_zeros, prose, newlines], ids=lambda make: make.__name__)
def test_text_among_the_files_of_a_folder(make: Callable[[Path], object], tmp_path: Path) -> None:
    for path in (SUBMISSIONS / "per_video").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    make(tmp_path / "video7.txt")
    refused(PredictionsError, "is not a predictions file", lambda: check_folder(tmp_path, TEMPLATE))


@pytest.mark.slow
def test_rows_without_end(tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    path.write_bytes(HEADER + b"video7/00001.jpg,0\n" * 130_000)
    with pytest.raises(PredictionsError, match=r"has far too many lines; found .* and more'; expected 22 rows"):
        check_predictions(path, TEMPLATE)
    with pytest.raises(PredictionsError, match="has far too many lines"):
        check_without_template(path, ["video7"], {"video7": 3})
    with pytest.raises(TemplateError, match=":3: has a row twice, on lines 2 and 3"):
        check_predictions(GOOD, path)
