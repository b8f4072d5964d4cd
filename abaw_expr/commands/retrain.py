"""`retrain`: the last training, on train and validation together."""

from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Stores, require
from abaw_expr.commands.exit_status import OK


def retrain(store: Stores, folds: Path, run: Path, calibration: int = 0) -> int:
    """Trains on train and validation together, with the settings and the epochs of the runs of `folds`.

    No validation recording is left, so nothing can be chosen by its scores any more: predict with --checkpoint last,
    and decide by what `tune` chose on the folds' oof.parquet. Run it again to continue.

        abaw-expr retrain store --folds folds --run runs/final
        abaw-expr predict runs/final store --split test --checkpoint last \\
            --template template.txt --out test.parquet

    Args:
        store: The prepared store, or several with their fractions.
        folds: The folder of `folds`, all of whose runs are finished.
        run: The folder of this run.
        calibration: Hold out one part of so many of all recordings, as in a cross-validation; `predict --split
            held-out` then predicts these. 0: none.
    """
    from abaw_expr.data.store.mixture import open_mixture
    from abaw_expr.training.loop import train
    from abaw_expr.training.run import RunFolder
    from tuning.retrain import plan_retraining

    require(calibration == 0 or calibration >= 2, "calibration", calibration, "0, or at least 2 parts")
    plan = plan_retraining(folds, calibration)
    settings = plan.settings
    console.note(
        f"{plan.runs} runs of folds: {settings.optimiser.epochs} epochs. "
        + ("One part is held out." if calibration else "The scores below are of recordings that are trained on.")
    )
    opened, print_epoch = open_mixture(store, settings.task_of), console.epoch_printer()
    with console.progress("Training steps") as on_progress:
        train(opened, RunFolder(run), settings, True, print_epoch, on_progress, (), console.print_start)
    console.note(f"Predict with it: abaw-expr predict {run} STORE --split test --checkpoint last --out test.parquet")
    return OK
