"""The one front door: `python -m abaw_expr COMMAND`, or `abaw-expr COMMAND`.

Heavy modules are imported inside the commands that need them, so that `--help` and `check` answer at once.
"""

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from abaw_expr import console
from abaw_expr.cli_convert import convert
from abaw_expr.cli_faces import faces, infer
from abaw_expr.cli_import import Tables, compare, files_of, import_outputs, read_decided
from abaw_expr.cli_ledger import ledger
from abaw_expr.cli_search import penalties_command, refit_command
from abaw_expr.cli_submissions import check, submit
from abaw_expr.cli_training import DEFAULT_RECIPE, Flag, ablate_command, base_settings, train_command
from abaw_expr.data.datasets.options import ClipOptions, Kind
from abaw_expr.errors import StoppedError, Terminated, UserError, shorten
from abaw_expr.files import check_target
from abaw_expr.settings import Settings, load_settings
from abaw_expr.tasks import EXPR, Task

if TYPE_CHECKING:
    from abaw_expr.data.release import Release
    from abaw_expr.scoring import Report

TASK = EXPR
OK, FAULTS, COULD_NOT_RUN, INTERRUPTED = 0, 1, 2, 130
SIGNALLED = 128
"""Exit status of a run that a signal ended in good order: this and the signal's number, as a shell has it."""
TERMINATED = SIGNALLED + signal.SIGTERM
OPEN_FILES = 10_240
"""At once; no system has a lower ceiling than macOS with this."""

ABOUT = """From the ABAW expression challenge's release to a checked submission file.

The way: prepare, train, predict, tune, score, submit, check.

`demo` walks all of it on made-up data. Each command has its own --help.

Exit status: 0 done, 1 done and faults found, 2 could not run.

--debug shows the traceback of an error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    # A first `--` has told torchrun that the flags after it are ours.
    arguments = [argument for argument in given[given[:1] == ["--"] :] if argument != "--debug"]
    debug = "--debug" in given
    _allow_open_files()
    try:
        with _sigterm_raised():
            return _run(arguments)
    except StoppedError as error:
        console.note(str(error))
        return SIGNALLED + error.signal
    except UserError as error:
        if debug:
            raise
        console.error(error)
        return COULD_NOT_RUN
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # at exit, what is left is written too
        return SIGNALLED + signal.SIGPIPE
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        what = error.strerror or f"{error.args[0] if error.args else error} (is the disk full?)"
        console.error(f"{where}{what}. Nothing was left half-written.")
        return COULD_NOT_RUN
    except MemoryError:
        if debug:
            raise
        console.error("out of memory. Nothing was left half-written. Use fewer --workers, or end what else runs there.")
        return COULD_NOT_RUN
    except KeyboardInterrupt as ended:
        signalled = isinstance(ended, Terminated)
        what, status = ("ended by SIGTERM", TERMINATED) if signalled else ("interrupted", INTERRUPTED)
        console.error(f"{what}. What was finished is kept; run it again, train with --resume, to go on.")
        return status


def _run(arguments: Sequence[str]) -> int:
    commands = _commands(arguments)
    return tyro.extras.subcommand_cli_from_dict(commands, prog="abaw-expr", description=ABOUT, args=arguments) or OK


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does, and a second one changes nothing; `train` keeps it until a step is done."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield  # somebody else's, who knows better
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _allow_open_files() -> None:
    """Lets this process and its workers keep the files of every recording open; many systems begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _commands(arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The commands by name; `train` shows the values of the settings file that the arguments name."""
    base = base_settings(arguments) if arguments[:1] in (["train"], ["ablate"]) else Settings()
    return {
        "demo": demo,
        "faces": faces,
        "prepare": prepare,
        "train": train_command(base, arguments, TASK),
        "predict": predict,
        "infer": infer,
        "import": import_outputs,
        "tune": tune,
        "score": score,
        "compare": compare,
        "submit": submit,
        "check": check,
        "convert": convert,
        "ledger": ledger,
        "ablate": ablate_command(base, TASK),
        "penalties": penalties_command(TASK),
        "refit": refit_command(TASK),
        "describe": describe,
    }


def prepare(
    store: Path,
    release: Path | None = None,
    kind: Kind = "aff-wild2",
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
    from abaw_expr.data.prepare import REPORT
    from abaw_expr.data.prepare import prepare as run

    with console.progress("Preparing frames") as tell:
        made = run(release, store, TASK, workers, tell, read)
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
    from abaw_expr.data.verify import verify as run

    with console.progress("Reading megabytes") as tell:
        problems = run(store, TASK, decode, workers, tell)
    for problem in problems:
        console.error(f"{store / problem.video}: {problem.detail}. {problem.remedy}")
    if problems:
        return FAULTS
    console.OUT.print(f"{store}: everything is as it was made", soft_wrap=True)
    return OK


def predict(
    run: Path,
    store: Path,
    split: Literal["train", "val", "test"],
    out: Path,
    template: Path | None = None,
    interval: float = 0.2,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    checkpoint: Literal["best", "last"] = "best",
) -> int:
    """Writes the outputs table: both branches' probabilities for every frame.

    Args:
        run: A trained run.
        store: The prepared store.
        split: Which videos.
        out: The Parquet file to write.
        template: The organisers' template; the table then holds its rows rather than the split's frames.
        interval: Seconds between the frames that the networks see; those between are interpolated. 0: every frame.
        accelerator: Device; auto takes a GPU where there is one.
        checkpoint: Weights of the best epoch by validation, or of the last, which nothing was chosen by.
    """
    from abaw_expr import inference
    from abaw_expr.data.store import open_store
    from abaw_expr.outputs import write_outputs
    from abaw_expr.training.run import RunFolder
    from submissions.template import read_template

    check_target(out, template)
    if not 0 <= interval < float("inf"):
        raise UserError("--interval cannot be used", found=interval, expected="seconds, 0 or more")
    opened = open_store(store, TASK)
    if template is None:
        wanted = inference.wanted_of_split(opened, split)
    else:
        rows = read_template(template, TASK).videos
        wanted = inference.wanted_by_name(opened, split, {name: video.frames for name, video in rows.items()})
    with console.progress("Predicting frames") as tell:
        outputs = inference.predict(
            RunFolder(run), opened, TASK, split, wanted, interval, accelerator, checkpoint, tell
        )
    write_outputs(out, outputs)
    if seen := next(iter(outputs.branches.values())).seen:
        console.note(
            f"The run was trained on {len(seen)} of these recordings, or on another person in them: {shorten(seen)}. "
            "What they score says little of recordings that are new to it."
        )
    if not outputs.speaking():
        console.note(
            f"None of these frames has {' or '.join(outputs.branches)}: the table has no numbers to decide by."
        )
    frames = outputs.table
    rows_ = [("videos", len(wanted)), ("frames", len(frames)), ("frames with a crop", int(frames["crop"].sum()))]
    console.table(f"Outputs {out}", ("", "count"), rows_)
    return OK


def tune(
    outputs: Tables,
    out: Path,
    rule: Literal["best", "plateau"] = "best",
    leave_out: Flag = False,
    missing: Literal["smoothed", "masked"] = "smoothed",
    pictures: Path | None = None,
) -> int:
    """Chooses weights, smoothing and prior correction on validation outputs, exactly.

    Of action units each one's threshold as well. Prior correction is of expressions' classes alone.

    The nested figure is the one to quote: each recording is scored by what the others choose. Where it is too high too,
    as on outputs of the best epoch, that is said; predict with --checkpoint last for validation and test.

    Args:
        outputs: The validation split's outputs tables, one or several, all their branches voting. NAME= gives a
            file's branch another name, where two files have the same.
        out: The decision file (JSON) to write.
        rule: What is best: the highest figure, or the highest mean with its neighbours, a broad optimum.
        missing: Whether a frame whose modality is missing gets, by smoothing, the vote of the frames in its window
            (smoothed) or none (masked).
        leave_out: Of two branches too, try to leave one out (weight 0); of more that is always tried.
        pictures: A folder for pictures (SVG and PNG): weights, smoothing, optimism, confusion.
    """
    from abaw_expr.outputs import read_joined
    from tuning.selection import decide, default_space, search

    check_target(out, *files_of(outputs))
    table = read_joined(outputs, None)
    with console.progress("Scoring candidates") as tell:
        found = search(table, default_space(table, leave_out, missing), rule, tell)
    decision = decide(table, found)
    decision.save(out)
    if pictures is not None:
        from tuning.pictures import draw_search

        draw_search(found, list(table.branches), pictures)
    console.print_decision(str(out), decision)
    return OK


def score(
    outputs: Tables = (),
    decision: Path | None = None,
    predictions: Path | None = None,
    annotations: Path | None = None,
    crops: tuple[Path, ...] = (),
    out: Path | None = None,
) -> int:
    """Scores as the organisers do, over all annotated frames.

    Expressions: macro F1. Valence and arousal: the mean of both CCC. Action units: the mean of their F1.

    Give either --outputs, with --decision where there is one, or --predictions and --annotations.

    Frames that have a crop are scored apart as well, where that is known.

    Args:
        outputs: Outputs tables with labels, as `tune` was given them.
        decision: The decision file to apply to them; without it all branches have the same vote.
        predictions: A predictions.txt, or the 3rd edition's folder of files.
        annotations: The folder of annotation files to score it against.
        crops: With --predictions: the roots of the crops, to score frames with a crop too.
        out: Write all figures here as JSON.
    """
    if out is not None:
        check_target(out, *files_of(outputs), decision, predictions)
    if outputs and not (predictions or annotations or crops):
        found = _score_outputs(outputs, decision)
    elif predictions and annotations and not (outputs or decision):
        found = _score_predictions(predictions, annotations, crops)
    else:
        raise UserError("score needs --outputs [--decision], or --predictions with --annotations [--crops]")
    for number, (name, report) in enumerate(found.items()):
        console.print_report(name, report, detailed=number == 0)
    if out is not None:
        from abaw_expr.files import write_json

        write_json(out, {name: report.to_json() for name, report in found.items()})
    return OK


def _score_outputs(outputs: Sequence[Path], decision: Path | None) -> "dict[str, Report]":
    table, chosen = read_decided(outputs, decision)
    videos = table.videos()
    truths, predicted = [v.label for v in videos], [chosen.labels(v) for v in videos]
    return chosen.kind.reports([v.name for v in videos], truths, predicted, [v.crop for v in videos])


def _score_predictions(predictions: Path, annotations: Path, crops: Sequence[Path]) -> "dict[str, Report]":
    from abaw_expr.data.release import challenge_of_folder, frames_with_crop, read_annotation_folder
    from abaw_expr.kinds import kind_of
    from submissions.reader import align, read_any

    challenge = challenge_of_folder(annotations)
    truths = read_annotation_folder(annotations, challenge)
    _, known = read_any(predictions, challenge)
    predicted = [align(known, video, len(truth)) for video, truth in truths.items()]
    has_crop = frames_with_crop(crops, truths) if crops else None
    return kind_of(challenge).reports(list(truths), list(truths.values()), predicted, has_crop)


def describe(
    json_: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False,
    settings: Path = DEFAULT_RECIPE,
) -> int:
    """Shows the networks: layers, shapes, parameters, multiply-adds of one sample.

    Args:
        json_: Print JSON instead of tables.
        settings: The settings file, or shipped name, whose networks are shown.
    """
    from abaw_expr.models.describe import describe as describe_networks

    found = describe_networks(load_settings(settings).model)
    if json_:
        print(json.dumps(found, indent=2))
        return OK
    for name, layers in found["layers"].items():
        rows = [
            (x["name"], x["kind"], "x".join(map(str, x["output"])), x["parameters"], x["multiply_adds"]) for x in layers
        ]
        total = ("total", "", "", found["parameters"][name], found["multiply_adds"][name])
        console.table(name.upper(), ("layer", "kind", "output", "parameters", "multiply-adds"), [*rows, total])
    return OK


def demo(out: Path, seed: int = 0) -> int:
    """Walks the whole way on a made-up corpus: films it, then runs every command.

    Ends with macro F1 of sound, picture and both, and a checked submission file.

    Args:
        out: A new folder: release, store, run, outputs, decision, predictions.txt, summary.json.
        seed: Seed of the corpus and of training.
    """
    from abaw_expr.demo import run

    return run(out, seed, TASK, main)
