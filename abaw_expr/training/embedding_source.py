"""What makes embeddings: an encoder with a file of weights, or the encoder of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abaw_expr.errors import RunError, SettingsError, unreadable
from abaw_expr.files import file_digest
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.onnx_encoder import OnnxEncoder
from abaw_expr.models.encoders.onnx_settings import OnnxSettings
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.encoders.weights import read_tensors
from abaw_expr.models.encoders.weights_path import DEFAULT, weights_path
from abaw_expr.settings import ModelSettings, StreamSettings
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.predict import load_network
from abaw_expr.training.run import RunFolder

_ONNX = "onnx:"


@dataclass(frozen=True)
class Source:
    """An encoder with its weights."""

    encoder: str
    """As the settings name it; of a run `branch` or `branch.stream`."""
    weights: str
    """A file, `package:NAME/FILE`, `default`, or the folder of the run."""
    of_run: bool = False
    onnx: OnnxSettings = field(default_factory=OnnxSettings)
    """Of `onnx:FILE`."""

    def build(self) -> Encoder:
        """The encoder with its weights. Raises SettingsError and RunError as training does."""
        if self._onnx_file is not None:
            return OnnxEncoder(self._onnx_file, self.onnx)
        return self._of_run() if self.of_run else self._of_file()

    def made(self) -> dict[str, Any]:
        """What identifies its rows: the encoder, and the digest of its weights.

        Raises SettingsError where it has no weights, and RunError where they cannot be read.
        """
        if self.of_run:
            return {"encoder": f"{self.encoder} of a run", "weights": load_checkpoint(self._run.best).signature}
        if self.weights == DEFAULT:
            return {"encoder": self.encoder, "weights": DEFAULT}
        if not (self.weights or self._onnx_file):
            remedy = "Name --weights: a file, package:NAME/FILE, or default."
            raise SettingsError(f"the encoder {self.encoder} has no weights: its rows would be random", remedy=remedy)
        path = self._onnx_file or weights_path(self.weights)
        name = "onnx" if self._onnx_file else self.encoder
        try:
            return {"encoder": name, "weights": file_digest(path)}
        except OSError as error:
            raise unreadable(RunError, path, error) from error

    @property
    def _onnx_file(self) -> Path | None:
        return Path(self.encoder.removeprefix(_ONNX)) if self.encoder.startswith(_ONNX) and not self.of_run else None

    @property
    def _run(self) -> RunFolder:
        return RunFolder(Path(self.weights))

    def _of_file(self) -> Encoder:
        encoder = build_encoder(StreamSettings(self.encoder), ModelSettings())
        if self.weights == DEFAULT:
            encoder.download()
        else:
            path = weights_path(self.weights)
            encoder.load(read_tensors(path), path)
        if encoder.untrained:
            remedy = "Train with it first (`weights` of a branch), then embed with --run."
            raise RunError(
                f"does not have {encoder.untrained}, which would be random", path=self.weights, remedy=remedy
            )
        return encoder

    def _of_run(self) -> Encoder:
        path = self._run.best
        network = load_network(path, self._run.load_settings(), load_checkpoint(path))
        streams = {
            f"{branch}.{stream}": own.encoder
            for branch, part in network.own_branches().items()
            for stream, own in zip(part.streams, part.own_streams(), strict=True)
        }
        branch, _, stream = self.encoder.partition(".")
        chosen = streams.get(f"{branch}.{stream or branch}")
        if chosen is None:
            raise RunError("has no such stream", path=self._run.root, found=self.encoder, expected=" or ".join(streams))
        return chosen
