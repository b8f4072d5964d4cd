"""`predict`: a run and a store to a table of outputs."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import require_seconds
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import UserError, shorten
from abaw_expr.files import atomic, check_target

if TYPE_CHECKING:
    from abaw_expr.data.store.store import Store
    from abaw_expr.outputs.table import Outputs
    from abaw_expr.settings import Settings
    from abaw_expr.training.predict import Wanted


def predict(
    run: Path,
    store: Path,
    split: Literal["train", "val", "test", "held-out"],
    out: Path,
    template: Path | None = None,
    stride: float | None = None,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    checkpoint: Literal["best", "last"] = "best",
    details: Path | None = None,
) -> int:
    """Writes an outputs table: the numbers of every branch for every frame, probabilities or values.

        abaw-expr predict runs/first store --split val --checkpoint last \\
            --out val.parquet
        abaw-expr predict runs/first store --split test --checkpoint last \\
            --template template.txt --out test.parquet

    Use --checkpoint last for validation and test: the best epoch is chosen on validation, so its scores there are too
    high.

    Args:
        run: A trained run.
        store: The prepared store.
        split: The split to predict; held-out: the fold that a run of `folds` did not train on.
        out: The Parquet file to write.
        template: The organisers' template; the table then has its rows instead of all frames of the split.
        stride: Seconds between the frames that the networks see; frames between them are interpolated. 0: every frame.
            Default: 0.2; a temporal model always has the stride that it was trained with.
        accelerator: Device; auto takes a GPU if there is one.
        checkpoint: Weights of the best epoch by validation, or of the last, which depends on no validation score.
        details: A second Parquet file: for each frame the weights of the streams that a branch joins, and the voice
            activity and entropy change that key-frame weights are made of.
    """
    from abaw_expr.data.store.store import open_store
    from abaw_expr.outputs.table import write_outputs
    from abaw_expr.training import predict
    from abaw_expr.training.details import stream_weights
    from abaw_expr.training.run import RunFolder

    check_target(out, template)
    if details is not None:
        check_target(details, template)
        if details.resolve() == out.resolve():
            raise UserError("is the table and its --details", path=out, remedy="Name two files.")
    require_seconds("stride", stride or 0.0)
    settings = RunFolder(run).load_settings()
    opened = open_store(store, settings.task_of)
    wanted = _wanted(opened, split, template, settings)
    weights = None if details is None else stream_weights(settings, wanted)
    with console.progress("Predicting frames") as on_progress:
        outputs = predict.predict(RunFolder(run), opened, split, wanted, stride, accelerator, checkpoint, on_progress)
    write_outputs(out, outputs)
    if details is not None and weights is not None:
        with atomic(details) as temporary, open(temporary, "wb") as file:  # pyarrow accepts only paths that are UTF-8
            weights.to_parquet(file, index=False, compression="zstd")
    _report(out, outputs, len(wanted))
    return OK


def _wanted(store: "Store", split: str, template: Path | None, settings: "Settings") -> "list[Wanted]":
    """The frames to predict: those of a template, or all of a split."""
    from abaw_expr.data.store.folds import HELD_OUT
    from abaw_expr.training.predict import wanted_by_name, wanted_of_fold, wanted_of_split
    from submissions.template import read_template

    if template is None:
        return wanted_of_fold(store, settings) if split == HELD_OUT else wanted_of_split(store, split)
    rows = read_template(template, settings.task_of).videos
    return wanted_by_name(store, split, {name: video.frames for name, video in rows.items()})


def _report(out: Path, outputs: "Outputs", videos: int) -> None:
    if seen := next(iter(outputs.branches.values())).seen:
        console.note(
            f"The run was trained on {len(seen)} of these recordings, or on another person in them: {shorten(seen)}. "
            "Their scores do not estimate those of new recordings."
        )
    if not outputs.branches_with_rows():
        console.note(f"None of these frames has {' or '.join(outputs.branches)}: the table has no numbers.")
    frames = outputs.table
    rows = [("videos", videos), ("frames", len(frames)), ("frames with a crop", int(frames["crop"].sum()))]
    console.table(f"Outputs {out}", ("", "count"), rows)
