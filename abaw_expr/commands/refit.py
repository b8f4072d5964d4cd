"""`refit`: the classification heads of a run, trained again."""

import tempfile
from pathlib import Path
from typing import Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Stores, require, require_counts, require_seconds


def refit(
    store: Stores,
    run: Path,
    out: Path,
    settings: Path | None = None,
    seed: int = 0,
    stride: float = 0.2,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Trains the classification heads of a run again, on its frozen features, and writes a run with them.

    It takes a pass over the frames and some seconds. `predict` takes the new run like the old one.

        abaw-expr refit store --run runs/first --out runs/refit

    Args:
        store: The store, or stores with their fractions, that the run was trained on.
        run: The trained run; it stays unchanged.
        out: The folder of the new run.
        settings: A settings file with the loss for the heads, such as best.yaml of `penalties`; without it the
            run's own.
        seed: Seed of the frames that are sampled.
        stride: Seconds between the frames that the heads train on; 0: every frame.
        accelerator: Device of the networks; auto takes a GPU if there is one.
    """
    from abaw_expr.data.store.mixture import open_mixture
    from abaw_expr.settings_file import load_settings
    from abaw_expr.tasks.registry import metric_of
    from abaw_expr.training.run import RunFolder
    from tuning.features import cached_features
    from tuning.refit import compare_heads
    from tuning.refit import refit as write_refit

    require_counts(0, seed=seed)
    require_seconds("stride", stride)
    require(not out.exists(), "out", out, "a new folder for the run")
    before = RunFolder(run)
    own = before.load_settings()
    wanted, task = own if settings is None else load_settings(settings), own.task_of
    opened = open_mixture(store, task)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".features-") as folder:
        with console.progress("Caching features") as on_progress:
            cache = Path(folder) / "features.pt"
            features = cached_features(cache, before, opened, stride, accelerator, on_progress)
        heads = write_refit(before, features, wanted, seed, out)
        rows = compare_heads(features, heads, task)
    console.table(f"{metric_of(task).title} on validation", ("heads", "equal votes", "best ratio", "nested"), rows)
    console.OUT.print("The best ratio m:n is chosen on these frames; nested, on the other recordings.")
    return 0
