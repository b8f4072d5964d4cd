"""The commands that write a submission and check it.

Heavy modules are imported inside the commands, so that `check` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Tables, files_of
from abaw_expr.commands.bundle import runs_to_bundle, write_and_tell
from abaw_expr.errors import shorten
from abaw_expr.files import check_target

if TYPE_CHECKING:
    pass


def submit(
    outputs: Tables,
    template: Path,
    out: Path,
    decision: tuple[Path, ...] = (),
    edition: Literal["one-file", "per-video"] = "one-file",
    fill: Literal["nearest", "interpolate"] | None = None,
    bundle: Path | None = None,
    runs: tuple[Path, ...] = (),
) -> int:
    """Writes the submission: the template's rows, in its order, with an answer each.

    The template's header says which challenge it is of. A multi-task template (image,valence,arousal,expression,aus)
    needs the outputs and decisions of all three: --outputs va.parquet expr.parquet au.parquet.

    Args:
        outputs: The test set's outputs tables, as `tune` was given those of validation.
        template: The organisers' template.
        out: The file to write, or the folder with --edition per-video.
        decision: The decision file to apply, one a challenge; without it all branches have the same vote.
        edition: one-file is predictions.txt (5th edition on); per-video is the 3rd edition's file a video.
        fill: What stands in for rows that no output is of, which are refused otherwise. nearest: the nearest predicted
            frame of the video; interpolate: the same for classes and units, for valence and arousal a line between the
            frames around it.
        bundle: A zip to write too: predictions, decisions, settings, versions, the checker's verdict and all hashes.
        runs: With --bundle: the folders of the runs that made the outputs, for their settings.
    """
    from abaw_expr.outputs.decided import read_all_decided
    from submissions.template import read_template
    from submissions.writer import VideoLabels, write_per_video, write_predictions

    if edition == "one-file":
        check_target(out, *files_of(outputs), *decision, template)
    rows, decided = read_template(template), read_all_decided(outputs, decision)
    for table, chosen, path in decided:
        console.applied(path, table, chosen)
    labels = {
        chosen.task: {video.name: VideoLabels(video.frame, chosen.labels(video)) for video in table.videos()}
        for table, chosen, _ in decided
    }
    tables = [table for table, *_ in decided]
    packed = runs_to_bundle(bundle, runs, tables, [*files_of(outputs), *decision, template, out])
    write = write_predictions if edition == "one-file" else write_per_video
    filled = write(rows, labels, out, fill)
    counts = [("videos", len(rows.videos)), ("rows", len(rows.rows)), ("rows filled", sum(filled.values()))]
    console.table(f"Submission {out}, {rows.format.name}", ("", "count"), counts)
    if filled:
        most_first = sorted(filled, key=lambda video: -filled[video])
        console.note(
            f"Rows filled by --fill {fill}: {shorten([f'{filled[video]} of {video}' for video in most_first])}."
        )
    if bundle is not None:
        options = {"edition": edition, "fill": fill}
        return write_and_tell(bundle, out, template, decision, tables, packed, options)
    console.note("Check it before you hand it in: abaw-expr check")
    return 0
