"""Checks a submission without the organisers' template: against their list of test videos, and the video files.

The rows of a template cannot be derived from the videos: in the 5th edition, 121 of the 228 test videos have as many
rows as frames, 106 have one more, and one has three less. So the number of a video's rows is taken from the submission
if it is plausible, and everything else is checked as against a template.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from abaw_expr.errors import PredictionsError, TemplateError
from abaw_expr.files import check_name
from submissions.checking.expected_rows import template_of
from submissions.checking.faults import Fault, Faults, Verdict
from submissions.checking.file import _REMEDY, check_file
from submissions.checking.folder import check_files
from submissions.checking.rows import IMAGE_LOCATION
from submissions.checking.text import Blocks, check_garbage, check_length, cut_header, read_blocks, repaired
from submissions.formats import FORMATS, PER_VIDEO, Format, recognise

USUAL = (0, 1)
"""Rows minus frames of nearly every video."""
LEAST, MOST = -3, 2
"""The range of rows minus frames that was observed in templates and annotations."""
LONG = 20_000
"""The assumed number of frames of a video without a known video file, as a limit."""


def check_without_template(path: Path | str, videos: Sequence[str], frames: Mapping[str, int]) -> Verdict:
    """Checks a `predictions.txt`, or a folder, that should have these videos.

    `frames` has the number of frames of the videos whose video file is known.

    Raises PredictionsError where the file cannot be read, is empty, is not text, or has no header similar to that of a
    format.
    """
    path = Path(path)
    if path.is_dir():
        form, seen = _folder(path, videos)
    else:
        form, seen = _file(path, sum(frames.get(video, LONG) for video in videos))
    rows = _rows(videos, seen, frames)
    findings = check_files(path, form, rows) if path.is_dir() else check_file(path, template_of(form, rows))
    unknown = [video for video in videos if video not in frames]
    unchecked = [] if path.is_dir() else ["the order of the videos"]
    if len(unknown) < len(videos):
        unchecked.append(f"the number of rows of each video, closer than {LEAST} to +{MOST} of its frames")
    if unknown:
        unchecked.append(f"the rows of {len(unknown)} of {len(videos)} videos, whose number of frames is not known")
    return Verdict(path, findings + _unusual(path, rows, frames), unchecked)


def read_list(path: Path) -> list[str]:
    """The organisers' list of test videos, one per line; a byte-order mark, CRLF and blank lines are accepted.

    Raises TemplateError where it cannot be read, or has a line that is not a name.
    """
    remedy = "Use the organisers' list: names_of_videos_in_each_test_set/..._test_set_release.txt."
    videos: dict[str, None] = {}
    for number, block in read_blocks(Faults(path), TemplateError, remedy):
        for line, text in enumerate(block.decode(errors="replace").splitlines(), number):
            video = text.strip()
            if "/" in video or "," in video:
                raise TemplateError("is not the name of a video", path=path, line=line, found=text, remedy=remedy)
            if video:
                videos[check_name(video, TemplateError, path, line)] = None
    return list(videos)


def _file(path: Path, most: int) -> tuple[Format, dict[str, int]]:
    """The format of a file, and the last frame of each video in it, in the file's order."""
    header, blocks = _opened(path)
    last: dict[bytes, int] = {}
    row = b""
    for number, block in blocks:
        check_length(path, number, most)
        lines = block[:-1].split(b"\n")
        row = row or lines[0]
        named = [found for line in lines if line and (found := _named(line))]
        check_garbage(path, number, lines, len(lines) - len(named), "rows like <video>/00001.jpg and numbers")
        for video, frame in named:
            last[video] = max(frame, last.get(video, 0))
    form = _form(path, header, row.count(b","), FORMATS)
    return form, {video.decode(errors="replace"): frame for video, frame in last.items()}


def _named(line: bytes) -> tuple[bytes, int] | None:
    """The video and the frame of a line, if it has an image location."""
    match = IMAGE_LOCATION.fullmatch(line.partition(b",")[0]) or IMAGE_LOCATION.fullmatch(
        repaired(line, 1, IMAGE_LOCATION)[0].partition(b",")[0]
    )
    return (match["video"], int(match["frame"])) if match else None


def _folder(folder: Path, videos: Sequence[str]) -> tuple[Format, dict[str, int]]:
    """The format of a folder's first file, and the number of lines of each video's file."""
    paths = [path for video in videos if (path := folder / f"{video}.txt").is_file()]
    if not paths:
        raise PredictionsError("holds none of the videos", path=folder, expected=f"files such as {videos[0]}.txt")
    rows = {path.stem: sum(block.count(b"\n") for _, block in _opened(path)[1]) for path in paths}
    header, blocks = _opened(paths[0])
    row = next(blocks, (0, header))[1].partition(b"\n")[0]
    return _form(paths[0], header, row.count(b",") + 1, PER_VIDEO), rows


def _opened(path: Path) -> tuple[bytes, Blocks]:
    """The first line of a file, and the other lines."""
    ignored = Faults(path)
    _, header, blocks = cut_header(read_blocks(ignored, PredictionsError, _REMEDY), ignored)
    return header, blocks


def _form(path: Path, header: bytes, numbers: int, forms: Sequence[Format]) -> Format:
    """The format with this header, or the most similar one, or else one with that many numbers per line."""
    text = header.decode(errors="replace")
    compound = recognise(text)
    known = {form.header.lower(): form for form in forms} | ({text.lower(): compound} if compound else {})
    nearest = get_close_matches(text.lower(), known, n=1, cutoff=0.7)
    form = known[nearest[0]] if nearest else next((form for form in forms if len(form.fields) == numbers), None)
    if form is None:
        expected = "the header of expr, va, au, multi-task or compound expressions"
        raise PredictionsError("has an unknown header", path=path, line=1, found=text, expected=expected)
    return form


def _rows(videos: Sequence[str], seen: Mapping[str, int], frames: Mapping[str, int]) -> dict[str, int]:
    """The expected number of rows of each video, videos in the order of the submission."""
    unknown = [name for name in seen if name not in videos]
    meant = {video: [video] if video in seen else get_close_matches(video, unknown, n=1) for video in videos}
    indices = {name: index for index, name in enumerate(seen)}
    rows = {}
    for video in sorted(videos, key=lambda video: min(map(indices.__getitem__, meant[video]), default=len(seen))):
        found = max(map(seen.__getitem__, meant[video]), default=frames.get(video, 1))
        usual = frames.get(video, found)
        rows[video] = found if LEAST <= found - usual <= MOST else usual
    return rows


def _unusual(path: Path, rows: Mapping[str, int], frames: Mapping[str, int]) -> list[Fault]:
    """Warnings of videos with an unusual number of rows."""
    warnings = Faults(path)
    for video, count in rows.items():
        if video in frames and count - frames[video] not in USUAL:
            found = f"{count} rows of {video}, whose video file has {frames[video]} frames"
            warnings.add("unusual row count", None, found, "as many rows as frames, or one more")
    return warnings.sorted()
