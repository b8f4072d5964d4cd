"""What overlapping stretches give a frame does not depend on which stretches share a batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.store.embeddings import EMBEDDINGS, write_entry, write_manifest
from abaw_expr.data.store.store import RECORDINGS, StoredVideo
from abaw_expr.models.network import build_network
from abaw_expr.models.temporal import TEMPORALS
from abaw_expr.settings import Settings
from abaw_expr.settings_file import dump_settings, load_settings, recipe, settings_from
from abaw_expr.tasks.task import VA
from abaw_expr.training import evaluation
from tests.helpers.stored import write_tables

FRAMES = {"before": 410, "long": 1000, "short": 30}
WIDTHS = {"faces": 12, "vggish": 8, "logmel": 6}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredVideo]:
    """Videos with embeddings, some frames of which have none."""
    root, rng = tmp_path_factory.mktemp("store"), np.random.default_rng(0)
    found = {}
    for video, frames in FRAMES.items():
        folder = root / RECORDINGS / video
        folder.mkdir(parents=True)
        none, labels = np.zeros(frames, np.int64), rng.uniform(-1, 1, (frames, 2)).astype(np.float32)
        found[video] = write_tables(folder, video, np.arange(frames) / 30, labels, none, none.astype(np.int32), task=VA)
        for name, width in WIDTHS.items():
            rows = rng.normal(size=(frames, width)).astype(np.float16)
            rows[rng.random(frames) < 0.1] = np.nan
            write_rows(root, name, video, rows)
    for name, width in WIDTHS.items():
        write_manifest(root / EMBEDDINGS / name, {}, width, [*FRAMES])
    return found


def write_rows(root: Path, name: str, video: str, rows: np.ndarray) -> None:
    folder = root / EMBEDDINGS / name / video
    folder.mkdir(parents=True)
    np.save(folder / f"{video}.npy", rows)
    write_entry(folder, "", [video])


def settings_of(temporal: str) -> Settings:
    """The recipe of 300 by 200 frames with these widths, and another model over time."""
    values = dump_settings(load_settings(recipe("va-tcn")))
    for name, stream in values["branches"]["va"]["streams"].items():
        stream.update(embedding_width=WIDTHS[name], projection=8, temporal=temporal)
    return settings_from(values)


@pytest.mark.parametrize("temporal", TEMPORALS)
def test_numbers_do_not_depend_on_the_bounds_of_batches(
    temporal: str, videos: dict[str, StoredVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(temporal)
    torch.manual_seed(0)
    network, fabric = build_network(settings), Fabric(accelerator="cpu", devices=1)

    def numbers(size: int, *names: str) -> np.ndarray:
        monkeypatch.setattr(evaluation, "_STRETCHES", size)
        index = FrameIndex([videos[name] for name in names], VA)
        own = replace(settings, compute=replace(settings.compute, workers=0))
        found, _ = evaluation.branch_numbers(fabric, network, index, np.arange(len(index)), own)
        return found["va"][index.video == names.index("long")]

    alone = numbers(64, "long")
    assert alone.shape == (1000, 2)
    assert np.nanstd(alone) > 1e-3
    for size in (1, 2, 3, 4):
        np.testing.assert_allclose(numbers(size, "long"), alone, rtol=0, atol=1e-6)
        np.testing.assert_allclose(numbers(size, "before", "long", "short"), alone, rtol=0, atol=1e-6)
