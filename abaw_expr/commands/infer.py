"""`infer`: what a trained run predicts for any video files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag, require, require_seconds
from abaw_expr.commands.exit_status import COULD_NOT_RUN, FAULTS, OK
from abaw_expr.errors import UserError, VideoError, shorten
from abaw_expr.files import locked

if TYPE_CHECKING:
    from abaw_expr.data.problems import Problem
    from abaw_expr.faces.extract import Faces
    from abaw_expr.infer.pipeline import InferenceOptions
    from abaw_expr.infer.prediction import PersonPrediction

ANNOTATED = ".annotated.mp4"
OUTPUTS = (".csv", ".png", ".html", ANNOTATED)


class _Video(NamedTuple):
    """A video that was predicted."""

    people: "list[PersonPrediction]"
    faces: "Faces"


def infer(
    videos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO ...")],
    run: Path,
    out: Path,
    decision: Path | None = None,
    annotate: Flag = False,
    every: int = 5,
    stride: float | None = None,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Predicts everyone in any video files, such as a phone's, with a trained run of any task.

    Each person gets NAME.csv (a row a frame: seconds, then probabilities and the class, valence and arousal, or
    probabilities and activity of the action units), NAME.png (a plot) and NAME.html (the video beside its timeline).
    Two people in a video become VIDEO_left and VIDEO_right; without a face the audio branch decides alone.

    To correct the choice of a person, change `choice` in OUT/found_faces/tracks.csv and run the command again.

        abaw-expr infer phone.mov --run runs/first --decision decision.json \\
            --out answers
        abaw-expr infer talks more.mp4 --run runs/first --out answers --annotate

    Exit status: 0 all videos are predicted, 1 some are not and are named, 2 none is.

    Args:
        videos: Video files, and folders of them at any depth; no two may have the same name.
        run: A trained run.
        out: The folder to write.
        decision: The decision file of `tune`; without one all branches have equal weights, without smoothing.
        annotate: Also write VIDEO.annotated.mp4: the video with boxes, predictions and audio.
        every: Detect faces in every N-th frame and track them in between.
        stride: Seconds between the frames that the networks see; frames between them are interpolated. 0: every frame.
            Default: 0.2; a temporal model always has the stride that it was trained with.
        accelerator: Device of the networks; auto takes a GPU if there is one.
    """
    began = time.perf_counter()
    require(every >= 1, "every", every, "a count of frames, 1 or more")
    if stride is not None:
        require_seconds("stride", stride)
    files = _files(videos, out, annotate)
    asked = _options(run, decision, stride, accelerator)
    done: list[_Video] = []
    failed: list[str] = []
    with locked(out, VideoError):
        for number, (name, video) in enumerate(files.items(), start=1):
            if len(files) > 1:
                console.note(f"{number} of {len(files)}: {video}")
            try:
                done.append(_infer(video, out, asked, every, annotate))
            except VideoError as error:
                if len(files) == 1:
                    raise
                failed.append(name)
                console.error(error)
    if not done:
        return COULD_NOT_RUN
    _report(done, out, time.perf_counter() - began)
    if failed:
        console.error(f"{len(failed)} of {len(files)} videos were not predicted: {shorten(failed)}.")
    return FAULTS if failed else OK


def _files(videos: tuple[Path, ...], out: Path, annotate: bool) -> Mapping[str, Path]:
    """The videos by name. Raises UserError, before any work, where their outputs cannot be written."""
    from abaw_expr.data.discovery import video_files_by_name
    from abaw_expr.data.media.sources import media_type
    from abaw_expr.faces.choose import CHOICE_SUFFIXES
    from abaw_expr.faces.folders import check_folders, check_output_files

    if not videos:
        usage = "infer VIDEO [VIDEO ...] --run RUN --out FOLDER"
        raise UserError("infer needs video files, or folders of them", expected=usage)
    files, problems = video_files_by_name(videos, but=ANNOTATED)
    for problem in problems:
        console.problem_note(problem)
    for video in files.values():
        check_output_files(out, video, OUTPUTS)
        if annotate and media_type(video) == "audio":
            raise VideoError("holds audio and no frames", path=video, remedy="Leave out --annotate.")
    check_folders(out, dict.fromkeys(files, CHOICE_SUFFIXES))
    return files


def _options(
    run: Path, decision: Path | None, stride: float | None, accelerator: Literal["auto", "cpu", "cuda"]
) -> "InferenceOptions":
    from abaw_expr.infer.pipeline import InferenceOptions
    from abaw_expr.training.run import RunFolder

    trained, chosen = RunFolder(run), None
    if decision is not None:
        from abaw_expr.outputs.decision import Decision

        chosen = Decision.load(decision, trained.load_settings().task_of)
    asked = InferenceOptions(trained, chosen, stride, accelerator)
    if mismatches := asked.decision_mismatches():
        from abaw_expr.outputs.applied import mismatch_note

        console.note(mismatch_note(decision, mismatches) or "")
    return asked


def _infer(video: Path, out: Path, asked: "InferenceOptions", every: int, annotate: bool) -> _Video:
    """Predicts everyone in a video and writes it. Raises VideoError where that cannot be done."""
    from abaw_expr.infer.pipeline import find_people, write_person_predictions

    with console.progress("Finding faces") as on_progress:
        found = find_people(video, out, every, on_progress)
    people = _predict(video, found, asked)
    annotated, shown = out / f"{video.stem}{ANNOTATED}", [video]
    if annotate and found.detections.frame_count:
        from abaw_expr.infer.annotate import annotate as write_annotated

        with console.progress("Writing the video") as on_progress:
            write_annotated(video, found, people, annotated, on_progress)
        shown.insert(0, annotated)
    write_person_predictions(people, found, out, shown)
    return _Video(people, found)


def _predict(video: Path, found: "Faces", asked: "InferenceOptions") -> "list[PersonPrediction]":
    """The predictions of everyone in a video; prints what is wrong with it, also where there are none."""
    from abaw_expr.infer.pipeline import predict_people

    problems: list[Problem] = []
    try:
        with console.progress("Predicting frames") as on_progress:
            return predict_people(video, found, asked, on_progress, problems)
    finally:
        if problems:
            console.problems(f"Problems of {video}, as `prepare` names them", problems)


def _report(done: list[_Video], out: Path, took: float) -> None:
    people = [one for video in done for one in video.people]
    rows = [(one.name, len(one.p), int(one.frames.crop.sum()), *one.summary().values()) for one in people]
    console.table(f"Predictions in {out}", ("", "frames", "with a face", *people[0].summary()), rows)
    console.ignored_tracks([video.faces for video in done], out)
    seconds = sum(video.people[0].seconds for video in done)
    console.OUT.print(f"{seconds:.1f} s of video in {took:.1f} s: {seconds / took:.2f} times real time.")
