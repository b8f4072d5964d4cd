"""Networks in ONNX files, for embeddings: the form in which many emotion networks are handed out.

Shapes: B images of S x S pixels, D features.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abaw_expr.errors import RunError, SettingsError, unreadable
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.image_front_end import ImageFrontEnd
from abaw_expr.models.encoders.onnx_settings import OnnxSettings


class OnnxEncoder(Encoder):
    """A network of images in an ONNX file, run by onnxruntime: RGB [B, 3, 112, 112] in [-1, 1] to a map [B, D, 1, 1].

    It cannot be trained. Raises RunError for a file that onnxruntime cannot read or whose input is no batch of images,
    and SettingsError where it has several outputs and none is named.
    """

    modality = "visual"
    input_shape = (3, 112, 112)

    def __init__(self, path: Path, settings: OnnxSettings) -> None:
        super().__init__()
        self._session = _session(path)
        (given, *others) = self._session.get_inputs()
        shape = given.shape
        if others or len(shape) != 4 or not (shape[1] == 3 or isinstance(shape[1], str)):
            found = ", ".join(f"{one.name} {one.shape}" for one in (given, *others))
            raise RunError(
                "takes no batch of images", path=path, found=found, expected="one input, [batch, 3, side, side]"
            )
        side = settings.side or (shape[2] if isinstance(shape[2], int) else 0)
        if not side:
            raise SettingsError("the side of the images is not known", remedy=f"Name --side: {path} takes any.")
        self._batch = shape[0] if isinstance(shape[0], int) else 0
        self._input, self._output = given.name, self._chosen(settings.output, path)
        self.images = ImageFrontEnd(side, settings.mean, settings.std)
        self.width = self(torch.zeros(1, *self.input_shape)).shape[1]
        self.front_end = {**self.images.settings, "output": self._output}

    def forward(self, x: Tensor) -> Tensor:
        images = self.images(x.float()).cpu()
        size = self._batch or max(len(images), 1)
        pieces = [self._run(images[start : start + size], size) for start in range(0, len(images), size)]
        found = torch.cat(pieces).flatten(1) if pieces else torch.empty(0, self.width)
        return found[..., None, None].to(x.device)

    def _run(self, images: Tensor, size: int) -> Tensor:
        """The features of a batch; a file may take batches of one size only."""
        whole = torch.cat([images, images.new_zeros(size - len(images), *images.shape[1:])])
        (found,) = self._session.run([self._output], {self._input: whole.numpy()})
        return torch.from_numpy(found)[: len(images)]

    def _chosen(self, output: str, path: Path) -> str:
        names = [one.name for one in self._session.get_outputs()]
        if output in names or (not output and len(names) == 1):
            return output or names[0]
        raise SettingsError(f"{path} has several outputs", found=output or "none named", expected=" or ".join(names))


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        path.open("rb").close()
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise unreadable(RunError, path, error) from error
    except Exception as error:  # onnxruntime has classes of its own for each kind of failure
        found = str(error).split("\n")[0]
        raise RunError("is no ONNX file that onnxruntime can run", path=path, found=found) from error
