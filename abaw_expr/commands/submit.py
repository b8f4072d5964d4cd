"""`submit`: outputs, decisions and a template to a submission."""

from pathlib import Path
from typing import Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Tables, files_of
from abaw_expr.commands.bundle import bundle_submission, runs_to_bundle
from abaw_expr.errors import shorten
from abaw_expr.files import check_target


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
    """Writes the submission: the template's rows, in its order, with a prediction each.

    The template's header names the challenge. A multi-task template (image,valence,arousal,expression,aus) needs
    outputs and decisions of all three tasks.

        abaw-expr submit test.parquet --decision decision.json \\
            --template template.txt --out predictions.txt
        abaw-expr submit va.parquet expr.parquet au.parquet \\
            --decision va.json expr.json au.json --template template.txt \\
            --out predictions.txt

    Args:
        outputs: Outputs tables of the test split, as those of validation were given to `tune`.
        template: The organisers' template.
        out: The file to write, or the folder with --edition per-video.
        decision: The decision files to apply, one a task; without one all branches have equal weights.
        edition: one-file writes predictions.txt (5th edition on); per-video writes a file a video (3rd edition).
        fill: How to fill rows without a prediction, which are refused otherwise. nearest: the nearest predicted frame
            of the video; interpolate: the same for classes and units, linear interpolation for valence and arousal.
        bundle: Also write this zip: predictions, decisions, settings, versions, the checker's verdict and all hashes.
        runs: With --bundle: the folders of the runs that made the outputs, for their settings.
    """
    from abaw_expr.outputs.applied import read_all_decided
    from submissions.template import read_template
    from submissions.writer import predictions_of, write_per_video, write_predictions

    if edition == "one-file":
        check_target(out, *files_of(outputs), *decision, template)
    rows, decided = read_template(template), read_all_decided(outputs, decision)
    for table, chosen, path in decided:
        console.applied(path, table, chosen)
    tables = [table for table, *_ in decided]
    packed = runs_to_bundle(bundle, runs, tables, [*files_of(outputs), *decision, template, out])
    write = write_predictions if edition == "one-file" else write_per_video
    filled = write(rows, predictions_of((table, chosen) for table, chosen, _ in decided), out, fill)
    counts = [("videos", len(rows.videos)), ("rows", len(rows.rows)), ("rows filled", sum(filled.values()))]
    console.table(f"Submission {out}, {rows.format.name}", ("", "count"), counts)
    if filled:
        most_first = [f"{filled[video]} of {video}" for video in sorted(filled, key=lambda video: -filled[video])]
        console.note(f"Rows filled by --fill {fill}: {shorten(most_first)}.")
    if bundle is not None:
        options = {"edition": edition, "fill": fill}
        return bundle_submission(bundle, out, template, decision, tables, packed, options)
    console.note("Check it before you submit it: abaw-expr check")
    return 0
