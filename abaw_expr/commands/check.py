"""`check`: every fault of a submission at once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Json, Predictions
from abaw_expr.errors import UserError

if TYPE_CHECKING:
    from submissions.checking.faults import Verdict


def check(
    predictions: Predictions,
    template: Path | None = None,
    videos: Path | None = None,
    media: Path | None = None,
    json_: Json = False,
) -> int:
    """Finds every fault of a submission, with line numbers; the template's header names the challenge.

        abaw-expr check predictions.txt --template template.txt
        abaw-expr check predictions.txt --videos test_set_release.txt --media videos

    Exit status: 0 clean, 1 faults, 2 could not run. Warnings do not change it.

    Args:
        predictions: The predictions.txt, or the 3rd edition's folder.
        template: The organisers' template.
        videos: Without a template: the organisers' list of test videos.
        media: With --videos: the folder of the videos, at any depth; their frames are counted.
        json_: Print the findings as JSON.
    """
    try:
        verdict = _verdict(predictions, template, videos, media)
    except UserError as error:
        if json_:
            print(json.dumps({"file": str(predictions), "verdict": "could not run", "error": str(error)}, indent=2))
        raise
    if json_:
        print(json.dumps(verdict.to_json(), indent=2))
        return 0 if verdict.clean else 1
    for finding in verdict.findings:
        console.OUT.print(str(finding), soft_wrap=True)
    console.OUT.print(f"{predictions}: {verdict.summary}", soft_wrap=True)
    for phrase in verdict.unchecked:
        console.OUT.print(f"{predictions}: not checked without a template: {phrase}", soft_wrap=True)
    return 0 if verdict.clean else 1


def _verdict(predictions: Path, template: Path | None, videos: Path | None, media: Path | None) -> "Verdict":
    from submissions.checking.checker import check_submission
    from submissions.checking.videos import check_without_template, read_list

    if template is None and videos is not None:
        names = read_list(videos)
        return check_without_template(predictions, names, _count_frames(media, names) if media else {})
    if template is None or videos or media:
        raise UserError("check needs --template, or without one --videos [--media]")
    if predictions.exists() and template.exists() and predictions.samefile(template):
        raise UserError("is named as predictions and as template", path=template, remedy="Name the organisers' file.")
    return check_submission(predictions, template)


def _count_frames(media: Path, videos: Sequence[str]) -> dict[str, int]:
    """The frames of every video whose film is found and can be read."""
    import av

    from abaw_expr.data.discovery import find_video_files, video_files_of
    from abaw_expr.data.media.decode import read_times
    from abaw_expr.tasks.names import VIDEO_SUFFIXES

    films, problems = find_video_files(media)
    film_of = video_files_of(videos, films, media, problems)
    for problem in problems:
        console.problem_note(problem)
    if not films:
        raise UserError("holds no videos", path=media, expected=", ".join(VIDEO_SUFFIXES))
    frames: dict[str, int] = {}
    with console.progress("Counting frames") as on_progress:
        for done, video in enumerate(videos):
            on_progress(done, len(videos))
            film = film_of[video].path
            try:
                count = len(read_times(film)) if film else 0
            except av.FFmpegError as problem:
                console.note(f"{film}: cannot be read ({problem.strerror}); its rows are not checked")
                continue
            if count:
                frames[video] = count
    return frames
