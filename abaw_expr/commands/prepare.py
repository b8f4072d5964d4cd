"""`prepare`: the release, or another data set, to a store."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag
from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.errors import UserError
from abaw_expr.tasks.task import Task

if TYPE_CHECKING:
    from abaw_expr.data.release.reader import Release
from abaw_expr.commands.exit_status import FAULTS, OK
from abaw_expr.tasks.task import EXPR


def prepare(
    store: Path,
    release: Path | None = None,
    kind: DatasetKind = "aff-wild2",
    workers: int = 0,
    skip_broken: Flag = False,
    verify: Flag = False,
    decode: Flag = False,
    options: Annotated[ClipOptions, tyro.conf.arg(name="")] = ClipOptions(),  # noqa: B008 (frozen)
) -> int:
    """Makes the store out of the release, or of another data set: packed crops, log-mel sound, labels.

    Run again, it does what is left to do: after a stop, or for videos that were added or mended.

    What is wrong with the release is printed, and written to report.json in the store, with what each recording's
    sound is like.

    Clips of your own are described by a CSV file with the header path,label,subject,split and a line a clip. path goes
    from the CSV's folder to a video, a sound file, a picture or a folder of pictures. label is a class, or a word such
    as happy, calm (Neutral), contempt (Other). split is train, val or test; where it is empty, --val-share of the
    subjects validate. More columns, if wanted: start and end (seconds) label a stretch of a clip; name calls it
    otherwise than its file.

    Args:
        store: The folder to make.
        release: The folder with the organisers' annotations, crops, videos and lists, at any depth; of another kind,
            the data set's folder; of clips, the CSV file.
        kind: What the release is: aff-wild2, the organisers' of any edition; afew, Train and Val with class folders;
            ck+, cohn-kanade-images and Emotion; ravdess, its files at any depth; clips, a CSV file.
        workers: Processes at work; 0: one a core.
        skip_broken: Exit with 0 even if videos had to be left out.
        verify: Read a finished store again instead, and name what is damaged. Needs no --release.
        decode: With --verify: decode every crop too.
    """
    from functools import partial

    from abaw_expr.data.datasets.kinds import read_dataset
    from abaw_expr.data.workers import processes

    workers = processes(workers)
    if verify == (release is not None) or (decode and not verify):
        raise UserError("prepare needs --store with --release, or --store with --verify [--decode]")
    if release is None:
        return _verify(store, workers, decode)
    return _make(release, store, partial(read_dataset, kind, options=options), workers, skip_broken)


def _make(release: Path, store: Path, read: "Callable[[Path, Task], Release]", workers: int, skip_broken: bool) -> int:
    from abaw_expr.data.store.prepare import REPORT
    from abaw_expr.data.store.prepare import prepare as run

    with console.progress("Preparing frames") as tell:
        made = run(release, store, EXPR, workers, tell, read)
    if made.problems:
        console.problems(f"Integrity of the release (each video: {store / REPORT})", made.problems)
    splits = [(f"{split} videos", made.videos.get(split, 0)) for split in ("train", "val", "test")]
    counts = [("frames", made.frames), ("crops", made.crops), ("problems", len(made.problems))]
    done = [("recordings made now", made.made), ("recordings there already", made.kept)]
    console.table(f"Store {store}", ("", "count"), [*splits, *counts, *done])
    if made.left_out and not skip_broken:
        console.error(
            f"{len(made.left_out)} videos were left out of the store. Mend them and run prepare again, or accept it "
            f"with --skip-broken."
        )
        return FAULTS
    return OK


def _verify(store: Path, workers: int, decode: bool) -> int:
    from abaw_expr.data.store.verify import verify as run

    with console.progress("Reading megabytes") as tell:
        problems = run(store, EXPR, decode, workers, tell)
    for problem in problems:
        console.error(f"{store / problem.video}: {problem.detail}. {problem.remedy}")
    if problems:
        return FAULTS
    console.OUT.print(f"{store}: everything is as it was made", soft_wrap=True)
    return OK
