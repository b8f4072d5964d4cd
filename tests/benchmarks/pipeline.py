"""Prediction from the packed store to the outputs table, both branches, against EfficientNet-B0 at 224 pixels.

    python -m tests.benchmarks.pipeline [--store STORE]

Baseline: timm's `efficientnet_b0` on the same crops: decode, resize to 224, normalise, network, softmax, table. Ours:
`predict` on every frame, sound and pictures, as the command does it. Untrained weights, the same batch size and the
same precision, once in float32 and once in bfloat16 where the machine has units for it. Exit status 1 when short, 2
without timm.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_jpeg

from abaw_expr.commands import console
from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.store.store import Store
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.models.network import build_network
from abaw_expr.outputs.table import branch_columns, write_outputs
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, recipe, save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import Checkpoint, save_checkpoint
from abaw_expr.training.evaluation import native_precision
from abaw_expr.training.predict import predict, wanted_of_split
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import Race, corpus, judge, print_facts, print_races, race

REQUIRED = 8.0
SIDE = 224
BATCH = 64
"""Frames in a batch, as prediction has them."""
TURNS = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels."""
Precision = Literal["32-true", "bf16-mixed"]


class EfficientNet:
    """The baseline: pictures alone, through timm's network."""

    def __init__(self, store: Store) -> None:
        import timm

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network: nn.Module = timm.create_model("efficientnet_b0", num_classes=EXPR.n_columns)
        self._network.eval().to(self._device)
        self._network.to(memory_format=torch.channels_last)  # the faster layout
        self._index = FrameIndex(store.split("val"), EXPR)
        self._mean, self._std = (torch.tensor(x, device=self._device)[:, None, None] for x in (MEAN, STD))

    @torch.inference_mode()
    def run(self, precision: Precision, out: Path) -> None:
        """Writes the table of all crops."""
        index, places = self._index, np.flatnonzero(self._index.has["visual"])
        pieces = []
        for start in range(0, len(places), BATCH):
            pictures = torch.stack([self._decode(place) for place in places[start : start + BATCH]])
            with torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                logits = self._network(self._prepare(pictures))
            pieces.append(logits.float().softmax(1).cpu().numpy())
        rows = np.concatenate(pieces)
        columns = {"video": index.video[places], "frame": index.row[places] + 1, "time": index.time[places]}
        table = pd.DataFrame(columns | dict(zip(branch_columns("visual", EXPR), rows.T, strict=True)))
        table.to_parquet(out, index=False)

    def _decode(self, place: int) -> Tensor:
        data = self._index.videos[self._index.video[place]].jpeg(int(self._index.row[place]))
        assert data is not None
        return decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB)

    def _prepare(self, pictures: Tensor) -> Tensor:
        """Pictures [b, 3, 224, 224], normalised, out of crops of bytes."""
        x = pictures.to(self._device).float().div_(255)
        x = nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear")
        return x.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)


def untrained(folder: Path, settings: Settings) -> RunFolder:
    """A run folder with fresh weights."""
    run = RunFolder(folder)
    save_settings(settings, run.settings)
    torch.manual_seed(0)
    weights = build_network(settings).state_dict()
    even = [1 / EXPR.n_columns] * EXPR.n_columns
    save_checkpoint(
        run.best,
        Checkpoint(
            signature="untrained",
            prior=even,
            history=[],
            step=0,
            loss=0.0,
            waiting=0.0,
            seconds=0.0,
            network=weights,
            ema={},
            optimiser={},
        ),
    )
    return run


def our_work(store: Store, run: RunFolder, out: Path) -> Callable[[], None]:
    """Ours: what the command `predict` does."""
    wanted = wanted_of_split(store, "val")

    def work() -> None:
        outputs = predict(
            run,
            store,
            "val",
            wanted,
            stride=0.0,
            accelerator="auto",
            checkpoint="best",
            on_progress=lambda done, total: None,
        )
        write_outputs(out, outputs)

    return work


def run_race(store: Store, precision: Precision, folder: Path) -> Race:
    """Both in one precision."""
    base = load_settings(recipe("modern"))
    settings = replace(base, precision=precision, data=replace(base.data, sequence=4))
    run = untrained(folder / precision, settings)
    theirs, out = EfficientNet(store), folder / "table.parquet"
    return race(lambda: theirs.run(precision, out), our_work(store, run, out), TURNS)


def benchmark(store: Path | None = None) -> int:
    """Runs all, prints the table and the verdict, and returns the exit status.

    Args:
        store: A prepared store, of which the validation split is predicted; else one is made up.
    """
    if importlib.util.find_spec("timm") is None:
        console.error("timm is missing: python -m pip install timm")
        return 2
    native = native_precision(Settings())
    precisions: list[Precision] = ["32-true", "bf16-mixed"] if native == "bf16-mixed" else ["32-true"]
    plan = CorpusPlan(train_videos=1, val_videos=3, test_videos=1, seconds=25)
    with corpus(store, plan) as opened, tempfile.TemporaryDirectory() as folder:
        frames = sum(len(video.frames) for video in opened.split("val"))
        races = [(precision, run_race(opened, precision, Path(folder))) for precision in precisions]
    print_facts()
    print_races(f"{frames} frames from store to table; baseline pictures, ours both", "frames", frames, races)
    return judge(*((r.ratio >= REQUIRED, f"{r.ratio:.1f} times in {name}, required {REQUIRED:g}") for name, r in races))


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
