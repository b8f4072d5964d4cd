"""The commands for videos as a camera writes them: faces out of them, and a run's answer for one of them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from abaw_expr import console
from abaw_expr.cli_training import Flag
from abaw_expr.errors import UserError, VideoError, shorten
from abaw_expr.files import locked
from abaw_expr.tasks import EXPR

if TYPE_CHECKING:
    from abaw_expr.faces.extract import Faces

TASK = EXPR


def faces(
    release: Path | None = None,
    videos: tuple[Path, ...] = (),
    out: Path | None = None,
    every: int = 5,
    workers: int = 0,
) -> int:
    """Finds the faces of videos that have no crops: detects, follows and aligns them, 112 x 112.

    Give --release, to complete a release before `prepare`, or --videos with --out.

    Writes <folder>/cropped_aligned_found/<video>/00001.jpg, laid out as the organisers' crops are; a frame without a
    face has none. Two people in one video become <video>_left and <video>_right.

    Who was taken stands in <folder>/found_faces/tracks.csv. Where that is the wrong one, change the column `choice`
    (main, left, right, ignore) and run the command again: it obeys, without looking for faces again.

    Args:
        release: The folder of the release; its annotated and test videos that have no crops are looked through.
        videos: Video files of any format, frame rate and rotation.
        out: With --videos: the folder to write.
        every: Pictures from one in which faces are looked for to the next; between them they are followed.
        workers: Processes at work, each on a video of its own; 0: one a core, or one in all where there is a GPU.
    """
    import torch

    from abaw_expr.data.release import read_release
    from abaw_expr.data.workers import processes
    from abaw_expr.faces.extract import extract_faces, videos_without_crops

    _check_every(every)
    workers = processes(workers or int(torch.cuda.is_available()))
    if release is not None and not videos and out is None:
        files, wanted = videos_without_crops(read_release(release, TASK))
        folder = release
    elif release is None and videos and out is not None:
        files, wanted, folder = _by_name(videos), None, out
    else:
        raise UserError("faces needs --release, or --videos with --out")
    if not files:
        console.OUT.print("All videos of the release have crops: there is nothing to do.")
        return 0
    with console.progress("Finding faces") as tell:
        found = extract_faces(files, folder, every, wanted, tell, workers)
    return _report(found, folder)


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
    from abaw_expr.answer.annotate import annotate as write_annotated
    from abaw_expr.answer.answer import Question, answer_people, find_people, write_answers
    from abaw_expr.faces.folders import check_answers
    from abaw_expr.fusion import Decision
    from abaw_expr.training.run import RunFolder

    _check_every(every)
    if not 0 <= interval < float("inf"):
        raise UserError("--interval cannot be used", found=interval, expected="seconds, 0 or more")
    chosen = None if decision is None else Decision.load(decision, TASK)
    asked = Question(RunFolder(run), chosen, interval, accelerator)
    check_answers(out, video, (".csv", ".png", ".annotated.mp4"))
    with locked(out, VideoError):
        with console.progress("Finding faces") as tell:
            found = find_people(video, out, every, tell)
        with console.progress("Predicting frames") as tell:
            answers = answer_people(video, found, asked, TASK, tell)
        write_answers(answers, found, out)
        if annotate:
            with console.progress("Writing the video") as tell:
                write_annotated(video, found, answers, out / f"{video.stem}.annotated.mp4", tell)
    rows = [(one.name, len(one.p), int(one.frames.crop.sum()), *one.shares()[0]) for one in answers]
    console.table(f"Answers in {out}", ("", "frames", "with a face", "most often", "share"), rows)
    _tell_ignored([found], out)
    seconds, took = answers[0].seconds, time.perf_counter() - began
    console.OUT.print(f"{seconds:.1f} s of video in {took:.1f} s: {seconds / took:.2f} times real time.")
    return 0


def _check_every(every: int) -> None:
    if every < 1:
        raise UserError("--every cannot be used", found=every, expected="a count of pictures, 1 or more")


def _by_name(videos: Sequence[Path]) -> dict[str, Path]:
    """Video files by the name that their crops get. Raises UserError where two have the same."""
    files = {path.stem: path for path in videos}
    if len(files) < len(videos):
        names = [path.stem for path in videos]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UserError("two --videos have the same name", found=shorten(twice), remedy="Name one of them otherwise.")
    return files


def _report(found: "Mapping[str, Faces | str]", folder: Path) -> int:
    """Prints what was found in each video; 1 where one could not be read."""
    whole = {name: one for name, one in found.items() if not isinstance(one, str)}
    rows = [
        (name, one.detections.pictures, one.cropped, len(one.tracks), ", ".join(one.crops) or "nobody")
        for name, one in whole.items()
    ]
    if rows:
        console.table(f"Faces in {folder}", ("video", "frames", "with a face", "tracks", "kept as"), rows)
    _tell_ignored(list(whole.values()), folder)
    unread = [f"{name} ({one})" for name, one in found.items() if isinstance(one, str)]
    if unread:
        console.error(f"{len(unread)} videos could not be read: {shorten(unread)}.")
    return 1 if unread else 0


def _tell_ignored(found: "Sequence[Faces]", folder: Path) -> None:
    from abaw_expr.faces.choose import IGNORE
    from abaw_expr.faces.extract import TABLE
    from abaw_expr.faces.folders import FOUND

    ignored = sum(choice == IGNORE for one in found for choice in one.chosen.values())
    if ignored:
        console.note(
            f"{ignored} more tracks of faces were ignored. To choose otherwise, edit {folder / FOUND / TABLE}."
        )
