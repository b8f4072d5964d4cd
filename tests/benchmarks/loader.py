"""Pictures a second a core, decoded and augmented: the packed store against a folder of JPEG files and Pillow.

    python -m tests.benchmarks.loader [--store STORE]

One process, one thread. Baseline: torchvision's `ImageFolder` with its default loader, the same changes by
`torchvision.transforms`, and a `DataLoader`. Ours: `Windows` and `Windows.on`. Both begin at the file system and end
with batches of normalised float32 pictures; sound is left out. Exit status 1 when short.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ColorJitter, Compose, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToTensor

from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples, draw_noise
from abaw_expr.data.batches.loading import load
from abaw_expr.data.batches.windows import Windows, modalities
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.store.store import Store
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.settings_file import load_settings, recipe
from abaw_expr.tasks.task import EXPR
from tests.benchmarks.common import corpus, judge, print_facts, print_races, race
from tests.helpers.batches import split_batches

REQUIRED = 3.0
PICTURES = 1_000
"""At most, of the training split."""
TURNS = 7
SETTINGS = load_settings(recipe("modern"))
BATCH = SETTINGS.optimiser.batch_size


def crops_of(store: Store) -> tuple[FrameIndex, np.ndarray]:
    """The training videos without their sound, and the places of the crops that both sides read."""
    index = FrameIndex([replace(video, audio_mean=None, audio_std=None) for video in store.split("train")], EXPR)
    indices = np.random.default_rng(0).permutation(np.flatnonzero(index.has["visual"]))[:PICTURES]
    return index, indices


def unpack(index: FrameIndex, indices: np.ndarray, root: Path) -> None:
    """Writes the crops as files, a folder a class."""
    for place in indices.tolist():
        folder = root / f"class {index.label[place]}"
        folder.mkdir(exist_ok=True)
        data = index.videos[index.video[place]].jpeg(int(index.row[place]))
        assert data is not None
        (folder / f"{place}.jpg").write_bytes(data)


def read_folder(root: Path) -> Callable[[], int]:
    """The baseline: one pass over the files; how many pictures came."""
    light = SETTINGS.augment.jitter
    changes = [
        RandomHorizontalFlip(),
        RandomResizedCrop(CROP_SIDE, (SETTINGS.augment.crop, 1.0), (1 / 1.1, 1.1)),
        ColorJitter(brightness=light, contrast=light),
        ToTensor(),
        Normalize([0.5] * 3, [0.5] * 3),
    ]
    loader = DataLoader(ImageFolder(str(root), Compose(changes)), BATCH, shuffle=True)
    return lambda: sum(len(pictures) for pictures, _ in loader)


def read_store(index: FrameIndex, indices: np.ndarray) -> Callable[[], int]:
    """Ours: one pass over the store; how many pictures came."""
    windows = Windows(index, modalities(["visual"], SETTINGS.data, {}), Augment(SETTINGS.augment))
    rng, cpu = np.random.default_rng(0), torch.device("cpu")

    def read() -> int:
        samples = Samples(rng.permutation(indices), draw_noise(rng, len(indices)))
        batches = load(windows, split_batches(samples, BATCH), workers=0)
        return sum(len(windows.on(cpu, batch).inputs["visual"]) for batch in batches)

    return read


def benchmark(store: Path | None = None) -> int:
    """Runs both, prints the table and the verdict, and returns the exit status.

    Args:
        store: A prepared store to read; else one is made up.
    """
    torch.set_num_threads(1)
    with (
        corpus(store, CorpusPlan(train_videos=4, val_videos=1, test_videos=1)) as opened,
        tempfile.TemporaryDirectory() as root,
    ):
        index, indices = crops_of(opened)
        unpack(index, indices, Path(root))
        theirs, ours = read_folder(Path(root)), read_store(index, indices)
        assert theirs() == ours() == len(indices)
        raced = race(theirs, ours, TURNS)
    print_facts()
    title = f"{len(indices)} crops, decoded, flipped, cropped, relit, in batches of {BATCH}"
    print_races(title, "pictures", len(indices), [("one core", raced)])
    return judge((raced.ratio >= REQUIRED, f"{raced.ratio:.2f} times ImageFolder's speed, required {REQUIRED:g}"))


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
