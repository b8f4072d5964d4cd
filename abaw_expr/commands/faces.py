"""The commands for videos as a camera writes them: faces out of them, and a run's answer for one of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.commands.arguments import require
from abaw_expr.errors import UserError, shorten
from abaw_expr.tasks.task import EXPR

if TYPE_CHECKING:
    from abaw_expr.faces.extract import Faces


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

    from abaw_expr.data.release.reader import read_release
    from abaw_expr.data.workers import processes
    from abaw_expr.faces.extract import extract_faces, videos_without_crops

    require(every >= 1, "every", every, "a count of pictures, 1 or more")
    workers = processes(workers or int(torch.cuda.is_available()))
    if release is not None and not videos and out is None:
        files, wanted = videos_without_crops(read_release(release, EXPR))
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
    console.ignored_tracks(list(whole.values()), folder)
    unread = [f"{name} ({one})" for name, one in found.items() if isinstance(one, str)]
    if unread:
        console.error(f"{len(unread)} videos could not be read: {shorten(unread)}.")
    return 1 if unread else 0
