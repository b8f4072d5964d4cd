"""`infer`: what a trained run predicts for any video file."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag, require, require_seconds
from abaw_expr.errors import VideoError
from abaw_expr.files import locked
from abaw_expr.tasks.task import EXPR

if TYPE_CHECKING:
    from abaw_expr.data.problems import Problem
    from abaw_expr.faces.extract import Faces
    from abaw_expr.infer.answer import Answer
    from abaw_expr.infer.answering import Question


def infer(
    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")],
    run: Path,
    out: Path,
    decision: Path | None = None,
    annotate: Flag = False,
    every: int = 5,
    interval: float = 0.2,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Says what a trained run sees and hears in any video file, such as a phone's.

    Finds faces, listens, predicts with both branches, fuses. Each person gets <name>.csv (a row a frame: seconds,
    probabilities, class) and <name>.png (the same as a picture, with the faces). Two people become <video>_left and
    <video>_right; without a face the sound decides alone.

    Where it took the wrong person, change `choice` in <out>/found_faces/tracks.csv and run it again.

    Args:
        video: The video file.
        run: A trained run.
        out: The folder to write.
        decision: A decision of `tune`; without one all branches have the same vote and nothing is smoothed.
        annotate: Write <video>.annotated.mp4 too: the video with boxes, classes and sound.
        every: Pictures from one in which faces are looked for to the next; between them they are followed.
        interval: Seconds between the frames that the networks see; those between are interpolated. 0: every frame.
        accelerator: Device of the networks; auto takes a GPU where there is one.
    """
    began = time.perf_counter()
    from abaw_expr.data.media.sources import media_type
    from abaw_expr.faces.folders import check_answers
    from abaw_expr.infer.annotate import annotate as write_annotated
    from abaw_expr.infer.answering import Question, find_people, write_answers
    from abaw_expr.outputs.decision import Decision
    from abaw_expr.training.run import RunFolder

    require(every >= 1, "every", every, "a count of pictures, 1 or more")
    require_seconds("interval", interval)
    chosen = None if decision is None else Decision.load(decision, EXPR)
    asked = Question(RunFolder(run), chosen, interval, accelerator)
    console.strangers(decision, asked.strangers())
    if annotate and media_type(video) == "sound":
        raise VideoError("holds sound and no picture", path=video, remedy="Leave out --annotate.")
    check_answers(out, video, (".csv", ".png", ".annotated.mp4"))
    with locked(out, VideoError):
        with console.progress("Finding faces") as tell:
            found = find_people(video, out, every, tell)
        answers = _answers(video, found, asked)
        write_answers(answers, found, out)
        if annotate and found.detections.pictures:
            with console.progress("Writing the video") as tell:
                write_annotated(video, found, answers, out / f"{video.stem}.annotated.mp4", tell)
    rows = [(one.name, len(one.p), int(one.frames.crop.sum()), *one.shares()[0]) for one in answers]
    console.table(f"Answers in {out}", ("", "frames", "with a face", "most often", "share"), rows)
    console.ignored_tracks([found], out)
    seconds, took = answers[0].seconds, time.perf_counter() - began
    console.OUT.print(f"{seconds:.1f} s of video in {took:.1f} s: {seconds / took:.2f} times real time.")
    return 0


def _answers(video: Path, found: "Faces", asked: "Question") -> "list[Answer]":
    """The answers for everyone in a video; what is wrong with it is told, be it that there is none."""
    from abaw_expr.infer.answering import answer_people

    problems: list[Problem] = []
    try:
        with console.progress("Predicting frames") as tell:
            return answer_people(video, found, asked, EXPR, tell, problems)
    finally:
        if problems:
            console.problems(f"What `prepare` would tell of {video}", problems)
