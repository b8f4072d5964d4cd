"""`refit`: the classification heads of a run, trained again."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Stores, require, require_counts, require_seconds
from abaw_expr.tasks.task import Task


def refit_command(task: Task) -> Callable[..., int]:
    def refit(
        store: Stores,
        run: Path,
        out: Path,
        settings: Path | None = None,
        seed: int = 0,
        interval: float = 0.2,
        accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> int:
        """Trains the classification heads of a run again, on its features as it left them, and writes a run with them.

        It takes a pass over the frames and some seconds. `predict --run` takes the new run as it would the old one.

        Args:
            store: The store, or stores with their shares, that the run was trained on.
            run: The trained run; it stays as it is.
            out: The folder of the new run.
            settings: A settings file, such as the best.yaml of `penalties`, whose loss the heads are trained with;
                without it the run's own.
            seed: Seed of the frames that are drawn.
            interval: Seconds between the frames that the heads learn from; 0: every frame.
            accelerator: Device of the networks; auto takes a GPU where there is one.
        """
        from abaw_expr.data.store.mixture import open_mixture
        from abaw_expr.settings import load_settings
        from abaw_expr.training.run import RunFolder
        from tuning.features import cached_features
        from tuning.refit import compare_heads
        from tuning.refit import refit as write_refit

        require_counts(0, seed=seed)
        require_seconds("interval", interval)
        require(not out.exists(), "out", out, "a new folder for the run")
        before = RunFolder(run)
        wanted = before.load_settings() if settings is None else load_settings(settings)
        opened = open_mixture(store, task)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".features-") as folder:
            with console.progress("Seeing features") as tell:
                cache = Path(folder) / "features.pt"
                features = cached_features(cache, before, opened, task, interval, accelerator, tell)
            heads = write_refit(before, features, wanted, task, seed, out)
            rows = compare_heads(features, heads, task)
        console.table("Macro F1 on validation", ("heads", "equal votes", "best ratio", "nested"), rows)
        console.OUT.print("The best ratio m:n was chosen on these very frames; nested, on the other recordings.")
        return 0

    return refit
