"""The sound branch at prediction: recordings in one pass against a window for every frame, 10 frames a second.

    python -m tests.benchmarks.audio_one_pass [--store STORE [--run RUN]]

Both run the same trained network in the same precision, sound only, from the store to probabilities. A run must have
been trained with neighbours; without one, a small audio-only run is trained first. Such a network hears a frame's
window of 3 s with the sound around it, so time and macro F1 are held against that, a pass for every frame. Plain
windows, which cut off what is around, stand beside it: they are less work, and one pass must be as many times faster
than they are too. Exit status 1 when short.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro

from abaw_expr.commands import console
from abaw_expr.data.batches.audio_chunks import merged_windows
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.loading import load
from abaw_expr.data.batches.windows import Windows, modalities
from abaw_expr.data.store.store import Store
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.network import Network, build_network
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, recipe
from abaw_expr.tasks.metric_classes import confusion, macro_f1
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.evaluation import branch_numbers, build_fabric
from abaw_expr.training.loop import train
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import corpus, judge, print_facts, print_races, race
from tests.helpers.batches import split_batches

REQUIRED = 8.0
TOLERATED = 0.005
"""Difference in macro F1."""
INTERVAL = 0.1
TURNS = 2
CHUNKED = 4
"""Neighbours of the run that is trained."""
ALONE, PLAIN, WHOLE = "frames one by one, as trained", "plain windows", "one pass"


def train_run(store: Store, folder: Path) -> RunFolder:
    """Trains the sound branch alone."""
    base = load_settings(recipe("demo"))
    settings = replace(
        base.only(("audio",)),
        data=replace(base.data, sequence=CHUNKED, stride=0.3),
        optimiser=replace(base.optimiser, batch_size=16, epochs=5),
    )
    run = RunFolder(folder / "run")
    train(store, run, settings, resume=False, on_epoch=console.epoch_printer())
    return run


def load_run(run: RunFolder) -> tuple[Settings, Network]:
    """A run's settings for the sound branch alone, and its best weights."""
    settings = run.load_settings()
    network = build_network(settings)
    network.load_state_dict(load_checkpoint(run.best).network)
    for name in settings.branches.keys() - {"audio"}:
        del network.branches[name]
    return settings.only(("audio",)), network.eval()


class Prediction:
    """The sound branch over the validation recordings, 10 frames a second."""

    def __init__(self, store: Store, run: RunFolder) -> None:
        self._settings, network = load_run(run)
        self._fabric = build_fabric(self._settings)
        self._network = self._fabric.to_device(network)
        self._index = FrameIndex(store.split("val"), EXPR)
        self.indices = self._index.at_stride(self._index.has["audio"], INTERVAL)

    def run(self, neighbours: int) -> np.ndarray:
        """Probabilities [k, c] of the places; 1 neighbour hears windows, more hear recordings in one pass."""
        settings = replace(self._settings, data=replace(self._settings.data, sequence=neighbours))
        p, _ = branch_numbers(self._fabric, self._network, self._index, self.indices, settings)
        return p["audio"]

    def run_alone(self) -> np.ndarray:
        """The same, every frame by itself with the sound around its window, as the network was trained."""
        cut = merged_windows(AUDIO_WINDOW, 0.0, AUDIO_WINDOW.context)
        windows = Windows(self._index, modalities(["audio"], self._settings.data, {"audio": cut}))
        batches = split_batches(Samples(self.indices, group=np.arange(len(self.indices))), 64)
        with torch.inference_mode(), self._fabric.autocast():
            log_p = [
                self._network(batch.inputs, batch.rows, batch.windows, batch.valid)["audio"].value.float()
                for batch in (windows.on(self._fabric.device, raw) for raw in load(windows, batches, workers=0))
            ]
        return torch.cat(log_p).exp().cpu().numpy()

    def score(self, p: np.ndarray) -> float:
        """Macro F1 on the annotated places."""
        truth = self._index.label[self.indices]
        known = truth >= 0
        return float(macro_f1(confusion(truth[known], p[known].argmax(axis=1), EXPR.n_columns)))

    @property
    def seconds(self) -> float:
        """Seconds of recordings that are heard."""
        last = np.flatnonzero(np.diff(self._index.video, append=-1))
        return float(self._index.time[last].sum())


def benchmark(store: Path | None = None, run: Path | None = None) -> int:
    """Runs both, prints the tables and the verdict, and returns the exit status.

    Args:
        store: A prepared store to read; else one is made up.
        run: A run trained on it; else one is trained.
    """
    plan = CorpusPlan(train_videos=8, val_videos=6, test_videos=1, seconds=60)
    with corpus(store, plan) as opened, tempfile.TemporaryDirectory() as folder:
        prediction = Prediction(opened, RunFolder(run) if run else train_run(opened, Path(folder)))
        p: dict[str, np.ndarray] = {}  # of the last turn

        def keep(name: str, run: Callable[[], np.ndarray]) -> Callable[[], None]:
            def work() -> None:
                p[name] = run()

            return work

        one_pass = keep(WHOLE, lambda: prediction.run(CHUNKED))
        alone = race(keep(ALONE, prediction.run_alone), one_pass, TURNS)
        plain = race(keep(PLAIN, lambda: prediction.run(1)), one_pass, TURNS)
    frames = len(prediction.indices)
    print_facts()
    rate = frames / prediction.seconds
    print_races(f"{frames} frames, {rate:.1f} a second of sound", "frames", frames, [(ALONE, alone), (PLAIN, plain)])
    scores = {name: prediction.score(rows) for name, rows in p.items()}
    same = {name: float((rows.argmax(axis=1) == p[WHOLE].argmax(axis=1)).mean()) for name, rows in p.items()}
    rows = [(name, scores[name], same[name]) for name in (ALONE, PLAIN, WHOLE)]
    console.table("Macro F1 on validation (chance: 0.125)", ("", "macro F1", f"same class as {WHOLE}"), rows)
    difference = abs(scores[ALONE] - scores[WHOLE])
    return judge(
        (alone.ratio >= REQUIRED, f"{alone.ratio:.1f} times the speed of {ALONE}, required {REQUIRED:g}"),
        (plain.ratio >= REQUIRED, f"{plain.ratio:.1f} times the speed of {PLAIN}, required {REQUIRED:g}"),
        (difference <= TOLERATED, f"macro F1 differs by {difference:.4f} from {ALONE}, allowed {TOLERATED}"),
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
