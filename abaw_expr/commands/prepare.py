"""`prepare`: the release, or another data set, to a store."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag
from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.errors import UserError

if TYPE_CHECKING:
    from abaw_expr.data.release.reader import Release
from abaw_expr.commands.exit_status import FAULTS, OK


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
    """Makes a store from a release, or from another data set: packed crops, log-mel audio, labels and splits.

    A release may hold the annotations of several challenges (EXPR, VA, AU): they share one store, which has the crops
    and the audio once.

    Run it again after a stop, or after videos were added or repaired: it prepares only what is missing. It prints every
    defect of the release with its remedy, and writes them to report.json in the store, with statistics of each
    recording's audio.

    A data set of your own (--kind clips) is described by a CSV file with the header path,label,subject,split and a line
    a clip. path leads from the CSV's folder to a video, an audio file, an image or a folder of images. label is a
    class, or a word such as happy, calm (Neutral), contempt (Other). split is train, val or test; where it is empty, a
    fraction of the subjects validates (--val-fraction). Optional columns: start and end (seconds) label a part of a
    clip; name replaces the file's name.

        abaw-expr prepare release store
        abaw-expr prepare RAVDESS ravdess --kind ravdess
        abaw-expr prepare store --verify --decode

    Args:
        store: The folder of the store.
        release: The folder with the organisers' annotations, crops, videos and lists, at any depth; for another kind,
            the data set's folder; for clips, the CSV file.
        kind: What the release is: aff-wild2, the organisers' of any edition; afew, Train and Val with class folders;
            ck+, cohn-kanade-images and Emotion; ravdess, its files at any depth; clips, a CSV file.
        workers: Processes to use; 0: one a core.
        skip_broken: Exit with 0 even if videos had to be left out.
        verify: Check a finished store instead, and name what is damaged. Needs no --release.
        decode: With --verify: decode every crop too.
    """
    from functools import partial

    from abaw_expr.data.datasets.registry import read_dataset
    from abaw_expr.data.workers import processes

    workers = processes(workers)
    if verify == (release is not None) or (decode and not verify):
        raise UserError("prepare needs --store with --release, or --store with --verify [--decode]")
    if release is None:
        return _verify(store, workers, decode)
    return _make(release, store, partial(read_dataset, kind, options=options), workers, skip_broken)


def _make(release: Path, store: Path, read: "Callable[[Path], Release]", workers: int, skip_broken: bool) -> int:
    from abaw_expr.data.store.prepare import REPORT
    from abaw_expr.data.store.prepare import prepare as run

    with console.progress("Preparing frames") as on_progress:
        made = run(release, store, workers, on_progress, read)
    if made.problems:
        console.problems(f"Integrity of the release (each video: {store / REPORT})", made.problems)
    splits = [
        (f"{task.upper()} {split} videos", counts.get(split, 0))
        for task, counts in made.videos.items()
        for split in ("train", "val", "test")
    ]
    counts = [("frames", made.frames), ("crops", made.crops), ("problems", len(made.problems))]
    done = [("recordings made now", made.made), ("recordings there already", made.kept)]
    console.table(f"Store {store}", ("", "count"), [*splits, *counts, *done])
    if made.left_out and not skip_broken:
        console.error(
            f"{len(made.left_out)} videos were left out of the store. Repair them and run prepare again, or accept it "
            f"with --skip-broken."
        )
        return FAULTS
    return OK


def _verify(store: Path, workers: int, decode: bool) -> int:
    from abaw_expr.data.store.verify import verify as run

    with console.progress("Verifying megabytes") as on_progress:
        problems = run(store, decode, workers, on_progress)
    for problem in problems:
        console.error(f"{store / problem.video}: {problem.detail}. {problem.remedy}")
    if problems:
        return FAULTS
    console.OUT.print(f"{store}: every file is intact", soft_wrap=True)
    return OK
