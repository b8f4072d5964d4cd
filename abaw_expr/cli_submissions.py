"""The commands that write a submission and check it.

Heavy modules are imported inside the commands, so that `check` answers at once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from abaw_expr import console
from abaw_expr.cli_bundle import runs_to_bundle, write_and_tell
from abaw_expr.cli_import import Tables, files_of, read_all_decided
from abaw_expr.errors import UserError, shorten
from abaw_expr.files import check_target

if TYPE_CHECKING:
    from submissions.faults import Verdict


def submit(
    outputs: Tables,
    template: Path,
    out: Path,
    decision: tuple[Path, ...] = (),
    edition: Literal["one-file", "per-video"] = "one-file",
    fill: Literal["nearest", "interpolate"] | None = None,
    bundle: Path | None = None,
    runs: tuple[Path, ...] = (),
) -> int:
    """Writes the submission: the template's rows, in its order, with an answer each.

    The template's header says which challenge it is of. A multi-task template (image,valence,arousal,expression,aus)
    needs the outputs and decisions of all three: --outputs va.parquet expr.parquet au.parquet.

    Args:
        outputs: The test set's outputs tables, as `tune` was given those of validation.
        template: The organisers' template.
        out: The file to write, or the folder with --edition per-video.
        decision: The decision file to apply, one a challenge; without it all branches have the same vote.
        edition: one-file is predictions.txt (5th edition on); per-video is the 3rd edition's file a video.
        fill: What stands in for rows that no output is of, which are refused otherwise. nearest: the nearest predicted
            frame of the video; interpolate: the same for classes and units, for valence and arousal a line between the
            frames around it.
        bundle: A zip to write too: predictions, decisions, settings, versions, the checker's verdict and all hashes.
        runs: With --bundle: the folders of the runs that made the outputs, for their settings.
    """
    from submissions.template import read_template
    from submissions.writer import VideoLabels, write_per_video, write_predictions

    if edition == "one-file":
        check_target(out, *files_of(outputs), *decision, template)
    rows, decided = read_template(template), read_all_decided(outputs, decision)
    labels = {
        chosen.task: {video.name: VideoLabels(video.frame, chosen.labels(video)) for video in table.videos()}
        for table, chosen in decided
    }
    tables = [table for table, _ in decided]
    packed = runs_to_bundle(bundle, runs, tables, [*files_of(outputs), *decision, template, out])
    write = write_predictions if edition == "one-file" else write_per_video
    filled = write(rows, labels, out, fill)
    counts = [("videos", len(rows.videos)), ("rows", len(rows.rows)), ("rows filled", sum(filled.values()))]
    console.table(f"Submission {out}, {rows.format.name}", ("", "count"), counts)
    if filled:
        most_first = sorted(filled, key=lambda video: -filled[video])
        console.note(
            f"Rows filled by --fill {fill}: {shorten([f'{filled[video]} of {video}' for video in most_first])}."
        )
    if bundle is not None:
        options = {"edition": edition, "fill": fill}
        return write_and_tell(bundle, out, template, decision, tables, packed, options)
    console.note("Check it before you hand it in: abaw-expr check")
    return 0


def check(
    predictions: tyro.conf.Positional[Path],
    template: Path | None = None,
    videos: Path | None = None,
    media: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Finds every fault of a submission at once, with line numbers; the template's header says which challenge it is.

    Exit status: 0 clean, 1 faults, 2 could not run. Warnings, of what may be right, leave it at 0.

    Args:
        predictions: The predictions.txt, or the 3rd edition's folder.
        template: The organisers' template.
        videos: Without a template: the organisers' list of test videos.
        media: With --videos: the folder of the videos, at any depth, whose frames are counted.
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
    from submissions.checker import check_folder, check_predictions
    from submissions.checker_videos import check_without_template, read_list
    from submissions.faults import Verdict

    if template is None and videos is not None:
        names = read_list(videos)
        return check_without_template(predictions, names, _count_frames(media, names) if media else {})
    if template is None or videos or media:
        raise UserError("check needs --template, or without one --videos [--media]")
    if predictions.exists() and template.exists() and predictions.samefile(template):
        raise UserError("is named as predictions and as template", path=template, remedy="Name the organisers' file.")
    return Verdict(predictions, (check_folder if predictions.is_dir() else check_predictions)(predictions, template))


def _count_frames(media: Path, videos: Sequence[str]) -> dict[str, int]:
    """The frames of every video whose film is found and can be read."""
    import av

    from abaw_expr.data.media import read_times
    from abaw_expr.data.walk import films_of, find_films
    from abaw_expr.spellings import VIDEO_SUFFIXES

    films, problems = find_films(media)
    film_of = films_of(videos, films, media, problems)
    for problem in problems:
        console.tell(problem)
    if not films:
        raise UserError("holds no videos", path=media, expected=", ".join(VIDEO_SUFFIXES))
    frames: dict[str, int] = {}
    with console.progress("Counting frames") as tell:
        for done, video in enumerate(videos):
            tell(done, len(videos))
            film = film_of[video].path
            try:
                count = len(read_times(film)) if film else 0
            except av.FFmpegError as problem:
                console.note(f"{film}: cannot be read ({problem.strerror}); its rows are not checked")
                continue
            if count:
                frames[video] = count
    return frames
