"""Faces of a trained generator, and sheets of them as pictures.

Shapes: B faces of S x S pixels, C classes, Z the length of an identity, n identities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.utils import make_grid

from abaw_expr.data.datasets.provenance import Provenance
from abaw_expr.errors import RunError, SettingsError
from abaw_expr.files import atomic, check_shape
from abaw_expr.generate.faces import as_bytes
from abaw_expr.generate.folder import GeneratorFolder
from abaw_expr.generate.networks import Generator
from abaw_expr.generate.settings import GeneratorSettings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_tensors

_IDENTITIES = 10
"""Columns of a sheet."""
_BATCH = 64


@dataclass(frozen=True)
class Sampler:
    """A trained generator: the EMA of its weights."""

    network: Generator
    identity_length: int
    side: int
    classes: tuple[int, ...]
    """The classes that it learned."""
    provenance: Provenance
    step: int
    """Steps that it was trained for."""

    def identities(self, count: int, seed: int) -> Tensor:
        """float32 [n, Z]; the first ones are the same for any count."""
        return torch.stack([identity_of(seed, number, self.identity_length) for number in range(count)])

    @torch.inference_mode()
    def faces(self, identities: Tensor, codes: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] of identities [B, Z] and class codes [B, C]; the network sees a few at a time."""
        parts = zip(identities.split(_BATCH), codes.split(_BATCH), strict=True)
        return torch.cat([as_bytes(self.network(identity, code)) for identity, code in parts])


def load_sampler(root: Path) -> Sampler:
    """The generator in a folder, as far as it is trained. Raises RunError where there is none."""
    import yaml

    folder = GeneratorFolder(root)
    provenance = folder.read_provenance()
    state = load_tensors(folder.last)
    if state.get("identity") != provenance.generator:
        raise RunError("does not belong to the generator's provenance.json", path=folder.last)
    values = yaml.safe_load(folder.settings.read_text())
    check_shape(values, dict, RunError, folder.settings, "Name a folder that `generate train` made.")
    try:
        settings = GeneratorSettings(**values)
        network = Generator(settings.side, len(EXPR.columns), settings.identity, settings.width)
        network.load_state_dict(state["ema"])
    except (TypeError, RuntimeError, SettingsError) as error:
        remedy = "Put back the settings.yaml that it was trained with."
        raise RunError("does not fit the generator's weights", path=folder.settings, remedy=remedy) from error
    network.eval().requires_grad_(False)
    return Sampler(network, settings.identity, settings.side, tuple(state["classes"]), provenance, state["step"])


def identity_of(seed: int, number: int, length: int) -> Tensor:
    """The identity [Z] of a number, for a seed."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.randn(length, generator=generator)


def codes_of(labels: Sequence[int]) -> Tensor:
    """Class codes float32 [B, C] of whole classes."""
    return one_hot(torch.tensor(labels), len(EXPR.columns)).float()


def sheet_codes(classes: Sequence[int], length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Identities and class codes of a sheet: a row a class, the same identities in every row."""
    identities = torch.stack([identity_of(seed, number, length) for number in range(_IDENTITIES)])
    labels = [label for label in classes for _ in range(_IDENTITIES)]
    return identities.repeat(len(classes), 1), codes_of(labels)


def write_sheet(faces: Tensor, rows: int, path: Path) -> None:
    """Writes faces [B, 3, S, S] in [-1, 1] or uint8 as one picture with that many rows."""
    from PIL import Image

    images = faces if faces.dtype == torch.uint8 else as_bytes(faces)
    grid = make_grid(images, nrow=len(images) // rows, padding=2, pad_value=255)
    with atomic(path) as temporary:
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(temporary, "PNG")
