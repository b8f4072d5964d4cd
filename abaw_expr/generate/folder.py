"""The folder of a generator.

settings.yaml        all settings
metrics.csv          losses, a row every hundred steps
samples/             sheets of samples during training: a row a class, a column an identity
checkpoints/last.pt  everything that training goes on with
provenance.json      what it learned from: the stores, and the names of the recordings
manifest.json        written last: its presence means that the training is complete
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from abaw_expr.data.datasets.provenance import PROVENANCE, Provenance, read_provenance
from abaw_expr.data.store.store import Store, learned_from
from abaw_expr.errors import RunError
from abaw_expr.files import digest, write_text
from abaw_expr.generate.settings import NOT_SIGNED, GeneratorSettings


@dataclass(frozen=True)
class GeneratorFolder:
    """The paths of a generator's files."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def last(self) -> Path:
        return self.root / "checkpoints" / "last.pt"

    @property
    def provenance(self) -> Path:
        return self.root / PROVENANCE

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    def sheet(self, step: int) -> Path:
        return self.root / "samples" / f"{step:06d}.png"

    def start(self, settings: GeneratorSettings, stores: Sequence[Store]) -> Provenance:
        """Writes settings and provenance, or checks that the generator in the folder has these; steps may differ.

        Raises RunError where it has others.
        """
        identity = digest([signed(settings), [store.digest for store in stores]])
        videos = [video for store in stores for video in store.videos if video.split == "train"]
        own = Provenance(identity, tuple(sorted(learned_from(videos))))
        if self.provenance.exists() and (found := self.read_provenance()) != own:
            remedy = "Name another --out, or the settings and stores that it was started with."
            raise RunError(
                "has a generator with other settings or stores",
                path=self.root,
                found=found.generator,
                expected=identity,
                remedy=remedy,
            )
        self.root.mkdir(parents=True, exist_ok=True)
        write_text(self.settings, yaml.safe_dump(asdict(settings), sort_keys=False))
        own.write(self.provenance)
        return own

    def read_provenance(self) -> Provenance:
        """What the generator in the folder learned from. Raises RunError where there is none."""
        return read_provenance(self.provenance, RunError, "Name a folder that `generate train` made.")


def signed(settings: GeneratorSettings) -> dict[str, object]:
    """The settings that the samples of a step depend on."""
    return {name: value for name, value in asdict(settings).items() if name not in NOT_SIGNED}
