"""`faces`: crops of the faces in videos that have none."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.commands.arguments import require
from abaw_expr.errors import UserError, shorten

if TYPE_CHECKING:
    from abaw_expr.faces.extract import Faces


def faces(
    release: Path | None = None,
    videos: tuple[Path, ...] = (),
    out: Path | None = None,
    every: int = 5,
    workers: int = 0,
) -> int:
    """Finds the faces of videos that have no crops: detects, tracks and aligns them to crops of 112 x 112 pixels.

    Give a release, to add its missing crops before `prepare`, or video files and --out.

    It writes FOLDER/cropped_aligned_found/VIDEO/00001.jpg in the layout of the organisers' crops; a frame without a
    face has no crop. Two people in a video become VIDEO_left and VIDEO_right.

    FOLDER/found_faces/tracks.csv lists all tracks of faces. To correct a choice, change its column `choice` (main,
    left, right, ignore) and run the command again: it applies the table without another detection.

        abaw-expr faces release
        abaw-expr faces talk.mp4 phone.mov --out found --workers 2

    Args:
        release: The folder of the release; its annotated and test videos without crops are processed.
        videos: Video files of any format, frame rate and rotation, or folders of them at any depth.
        out: With --videos: the folder to write.
        every: Detect faces in every N-th frame and track them in between.
        workers: Processes, each with a video of its own; 0: one a core, or a single one on a GPU.
    """
    import torch

    from abaw_expr.data.discovery import video_files_by_name
    from abaw_expr.data.release.reader import read_release
    from abaw_expr.data.workers import processes
    from abaw_expr.faces.extract import extract_faces, videos_without_crops

    require(every >= 1, "every", every, "a count of pictures, 1 or more")
    workers = processes(workers or int(torch.cuda.is_available()))
    if release is not None and not videos and out is None:
        files, wanted = videos_without_crops(read_release(release))
        folder = release
    elif release is None and videos and out is not None:
        (files, problems), wanted, folder = video_files_by_name(videos), None, out
        for problem in problems:
            console.problem_note(problem)
    else:
        raise UserError("faces needs --release, or --videos with --out")
    if not files:
        console.OUT.print("All videos of the release have crops: there is nothing to do.")
        return 0
    with console.progress("Finding faces") as on_progress:
        found = extract_faces(files, folder, every, wanted, on_progress, workers)
    return _report(found, folder)


def _report(found: "Mapping[str, Faces | str]", folder: Path) -> int:
    """Prints what was found in each video; 1 where one could not be read."""
    whole = {name: one for name, one in found.items() if not isinstance(one, str)}
    rows = [
        (name, one.detections.frame_count, one.cropped, len(one.tracks), ", ".join(one.crops) or "nobody")
        for name, one in whole.items()
    ]
    if rows:
        console.table(f"Faces in {folder}", ("video", "frames", "with a face", "tracks", "kept as"), rows)
    console.ignored_tracks(list(whole.values()), folder)
    unread = [f"{name} ({one})" for name, one in found.items() if isinstance(one, str)]
    if unread:
        console.error(f"{len(unread)} videos could not be read: {shorten(unread)}.")
    return 1 if unread else 0
