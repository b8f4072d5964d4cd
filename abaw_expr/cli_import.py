"""The command that brings in what other models say, and the one that compares."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from abaw_expr import console
from abaw_expr.cli_training import Flag
from abaw_expr.errors import DecisionError, UserError, shorten
from abaw_expr.files import check_target, read_json
from abaw_expr.tasks import Challenge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from abaw_expr.fusion import Decision
    from abaw_expr.importing import Imported
    from abaw_expr.outputs import Outputs
    from abaw_expr.scoring import Statistics

Tables = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[NAME=]FILE [[NAME=]FILE ...]")]


def import_outputs(
    source: tyro.conf.Positional[Path],
    name: str,
    out: Path,
    like: Path | None = None,
    annotations: Path | None = None,
    template: Path | None = None,
    challenge: Literal["expr", "va", "au", "compound"] | None = None,
    videos: Path | None = None,
    rate: float | None = None,
    logits: Flag = False,
    incomplete: Flag = False,
    prior: tuple[float, ...] | None = None,
) -> int:
    """Turns another model's numbers into an outputs table, checked row by row.

    `tune`, `score` and `submit` then take it, alone or beside other tables: --outputs val.parquet clip.parquet.

    Which frames, and which challenge, say --like, --annotations or --template: classes of expressions or compound
    expressions, valence and arousal, or action units.

    Args:
        source: A CSV or Parquet file with video and frame (or image_location) and a column a class, under the
            classes' names; or a folder of VIDEO.npz with probabilities or logits, classes and, if not 1 to the end,
            frame. For action units a column a unit (AU1) with its probability; for valence and arousal their values,
            in an NPZ under `values`.
        name: What the branch is to be called.
        out: The Parquet file to write.
        like: The outputs table that it is to vote beside: it gives rows, times and labels.
        annotations: Without --like: the folder of annotation files, whose lines are the rows, with their labels.
        template: Without --like: the organisers' template, whose rows are the rows.
        challenge: Which challenge's numbers these are; needed where a template asks for several.
        videos: Without --like: the folder of the video files, at any depth, for each frame's time.
        rate: Without --like and --videos: frames a second of all videos. Smoothing is in seconds.
        logits: The numbers are logits, not probabilities.
        incomplete: Whole videos may be missing; the branch has no vote in them.
        prior: What the model's training saw on average: the share of each class, in the task's order (even where not
            given, and then nothing is corrected), or of each unit's active frames, or mean valence and arousal.
    """
    from abaw_expr.importing import import_branch
    from abaw_expr.outputs import read_outputs, write_outputs

    check_target(out, source, like, template)
    if [like, annotations, template].count(None) != 2:
        raise UserError("import needs one of --like, --annotations and --template, to know the frames")
    rows_of = read_outputs(like, None) if like else _frames(annotations, template, challenge, videos, rate)
    if challenge not in (None, rows_of.task.name):
        where = like or annotations
        raise UserError("is of another challenge", path=where, found=rows_of.task.name, expected=challenge)
    imported = import_branch(source, name, rows_of, logits, prior, incomplete)
    write_outputs(out, imported.outputs)
    _report(f"Outputs {out}, branch {name}, {rows_of.task.name}", imported)
    return 0


def _report(title: str, imported: "Imported") -> None:
    """Says how the rows of a source met those of the table."""
    rows = [("rows of the table", imported.used + imported.silent), ("rows with numbers", imported.used)]
    rows += [("rows without: no vote", imported.silent), ("rows of other frames, left out", imported.beyond)]
    rows += [("rows made to sum to 1, as they were rounded", imported.scaled)] if imported.scaled else []
    console.table(title, ("", "count"), rows)
    if imported.spelt:
        names = [f"{theirs} for {ours}" for theirs, ours in imported.spelt.items()]
        console.note(f"{len(names)} videos are written otherwise, and were understood: {shorten(names)}.")
    if imported.strangers:
        count = len(imported.strangers)
        console.note(f"{count} videos are not in the table, and were left out: {shorten(imported.strangers)}.")


def compare(outputs: Tables, decision: Path, other_outputs: Tables, other_decision: Path) -> int:
    """Says by how much one decision beats another on the same frames, and how sure that is.

    A paired bootstrap: each resample draws the same recordings for both.

    Args:
        outputs: The outputs tables of the first.
        decision: The decision file of the first.
        other_outputs: The outputs tables of the second; the same where only the decision differs.
        other_decision: The decision file of the second.
    """
    from abaw_expr.comparison import check_same_annotations
    from abaw_expr.scoring import bootstrap_difference, bootstrap_interval

    (table, chosen), (other, other_chosen) = (
        read_decided(outputs, decision),
        read_decided(other_outputs, other_decision),
    )
    check_same_annotations(table, other)
    kind, first, second = chosen.kind, _by_recording(table, chosen), _by_recording(other, other_chosen)
    if len(first) < 2:
        raise UserError("there is nothing to resample", found="1 recording", expected="at least 2")
    figure = kind.figure
    rows: list[tuple[str, float, float, float]] = []
    for path, counts in ((decision, first), (other_decision, second)):
        interval = bootstrap_interval(counts, seed=0, figure=figure)
        rows.append((str(path), float(figure(counts.sum(axis=0))), *interval))
    rows.append(("difference", *bootstrap_difference(first, second, seed=0, figure=figure)))
    console.table(f"{kind.figure_title} on {len(first)} recordings", ("", kind.figure_name, "95 % from", "to"), rows)
    _, _, low, high = rows[-1]
    verdict = "The interval of the difference holds 0: no difference is shown." if low <= 0 <= high else None
    console.OUT.print(verdict or f"The {'first' if low > 0 else 'second'} is better.")
    return 0


def files_of(outputs: Sequence[Path]) -> list[Path]:
    """The files that `[NAME=]FILE` flags name."""
    from abaw_expr.outputs import split_name

    return [split_name(file)[1] for file in outputs]


def read_decided(outputs: Sequence[Path], decision: Path | None) -> "tuple[Outputs, Decision]":
    """Outputs tables of any challenge as one, and the decision to apply to them, which fits.

    Without a decision file all branches have the same vote, and that is said.
    """
    from abaw_expr.outputs import read_joined

    table = read_joined(outputs, None)
    return table, _fitting(table, decision)


def read_all_decided(outputs: Sequence[Path], decisions: Sequence[Path]) -> "list[tuple[Outputs, Decision]]":
    """Outputs tables as one a challenge, and the decision to apply to each; as `read_decided`, for several challenges.

    Raises DecisionError where two decisions are of one challenge, or one is of another than all tables.
    """
    from abaw_expr.outputs import read_by_challenge

    tables = read_by_challenge(outputs)
    chosen: dict[Challenge, Path] = {}
    for path in decisions:
        value = read_json(path, DecisionError, "Name a decision file.")
        named = value.get("task") if isinstance(value, dict) else None
        # Where none is, loading says so.
        task = next((task for task in tables if task.name == named), next(iter(tables)))
        if task in chosen:
            raise DecisionError("is the second decision of its challenge", path=path, found=named, expected="one each")
        chosen[task] = path
    return [(table, _fitting(table, chosen.get(task))) for task, table in tables.items()]


def _fitting(table: "Outputs", decision: Path | None) -> "Decision":
    from abaw_expr.fusion import Decision, equal_weights

    if decision is None:
        chosen = equal_weights(table)
        console.note(f"No --decision: all branches have the same vote, nothing is tuned ({chosen}).")
    else:
        chosen = Decision.load(decision, table.task)
        chosen.check(table)
        console.strangers(decision, chosen.strangers(table.branches))
    return chosen


def _by_recording(table: "Outputs", decision: "Decision") -> "Statistics":
    """Statistics a recording, [R, F, K]."""
    from abaw_expr.scoring import sum_recordings

    videos = table.videos()
    return sum_recordings([video.name for video in videos], decision.statistics(videos))


def _frames(
    annotations: Path | None, template: Path | None, challenge: str | None, videos: Path | None, rate: float | None
) -> "Outputs":
    """The frames of annotations or of a template, with their times."""
    import numpy as np

    from abaw_expr.data.release import challenge_of_folder, read_annotation_folder
    from abaw_expr.importing import frames_of
    from submissions.template import read_template

    if annotations is not None:
        task = challenge_of_folder(annotations)
        labels = read_annotation_folder(annotations, task)
        frames = {video: np.arange(1, len(lines) + 1) for video, lines in labels.items()}
        return frames_of(task, "val", frames, times_of_frames(frames, videos, rate), labels)
    assert template is not None
    rows = read_template(template)
    tasks = [task for task in rows.format.challenges if challenge in (None, task.name)]
    if len(tasks) != 1:
        names = ", ".join(task.name for task in rows.format.challenges)
        raise UserError("which --challenge is meant?", path=template, found=challenge, expected=f"one of {names}")
    frames = {video: np.sort(own.frames) for video, own in rows.videos.items()}
    return frames_of(tasks[0], "test", frames, times_of_frames(frames, videos, rate))


def times_of_frames(
    frames: "Mapping[str, NDArray]", videos: Path | None, rate: float | None
) -> "Mapping[str, NDArray]":
    """The seconds of each video's frames, [T], off the clock of its file or at one rate."""
    from abaw_expr.data.clocks import times_of

    if videos is not None:
        return times_of(frames, videos, console.tell)
    if rate is None or not 0 < rate < float("inf"):
        expected = "frames a second, or --videos with the folder of the video files"
        raise UserError("--rate cannot be used", found=rate, expected=expected)
    return {video: (numbers - 1) / rate for video, numbers in frames.items()}
