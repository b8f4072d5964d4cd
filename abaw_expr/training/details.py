"""What a run's joined branches weigh their streams by, frame by frame: a table beside the outputs, to look at.

Shapes: n frames of an index, k of them wanted, S streams.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.errors import SettingsError
from abaw_expr.models.branch import Branch
from abaw_expr.models.network import outline
from abaw_expr.settings import Settings
from abaw_expr.training.predict import Wanted


def stream_weights(settings: Settings, wanted: Sequence[Wanted]) -> pd.DataFrame:
    """The weights of the streams of every joined branch on the wanted frames, a row a frame.

    Columns: video, frame, time in seconds; for each branch and stream `<branch>_<stream>`, float32, 0 where the frame
    lacks the stream; with key frames for each modality `activity_<modality>`, float32 in [0, 1]: the voice activity
    (audio) and the entropy change (visual) that the weights are made of.

    Raises SettingsError for a run without a branch of several streams.
    """
    branches = {name: one for name, one in outline(settings).own_branches().items() if one.join is not None}
    if not branches:
        remedy = "Leave out --details, or train with streams that are joined, as the recipe mecs does."
        raise SettingsError("the run weighs no streams", expected="a branch of several streams", remedy=remedy)
    tables = []
    for item in sorted(wanted, key=lambda item: item.video.name):  # as the rows of the outputs
        index, columns = FrameIndex([item.video], settings.task_of), item.columns
        for name, branch in branches.items():
            weights = np.where(item.beyond[:, None], 0, _weights(branch, index)[item.rows])
            columns |= {f"{name}_{stream}": weights[:, i] for i, stream in enumerate(branch.streams)}
        if any(branch.key_frames for branch in branches.values()):
            columns |= {f"activity_{name}": own[item.rows] for name, own in index.activity.items()}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _weights(branch: Branch, index: FrameIndex) -> np.ndarray:
    """float32 [n, S]."""
    modalities = [stream.encoder.modality for stream in branch.own_streams()]
    always, activity = np.ones(len(index), np.float32), index.activity if branch.key_frames else {}
    present = torch.from_numpy(np.stack([index.has[name] for name in modalities], 1))
    active = torch.from_numpy(np.stack([activity.get(name, always) for name in modalities], 1))
    return branch.weigh(present, active).numpy()
