"""Networks in ONNX files: torch's own export of a network gives that network's features."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import open_store
from abaw_expr.data.store.stored_crops import decode_crop
from abaw_expr.errors import RunError, SettingsError
from abaw_expr.models.encoders.image_front_end import ImageFrontEnd
from abaw_expr.models.encoders.onnx_encoder import OnnxEncoder
from abaw_expr.models.encoders.onnx_settings import OnnxSettings
from abaw_expr.tasks.task import EXPR


class Net(nn.Module):
    """Logits and an embedding, as emotion networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classes = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.layers(x).flatten(1)
        return self.classes(embedding), embedding


def export(path: Path, side: int = 64, **more: object) -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    names = {"input_names": ["image"], "output_names": ["logits", "embedding"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(2, 3, side, side),), str(path), dynamo=False, **names, **more)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize("batch", ["any", "two"])
def test_features_are_those_of_the_network(batch: str, tmp_path: Path) -> None:
    net = export(tmp_path / "n.onnx", dynamic_axes={"image": {0: "batch"}} if batch == "any" else None)
    own = OnnxEncoder(tmp_path / "n.onnx", OnnxSettings(output="embedding", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    assert own.width == 8
    assert own.front_end["side"] == 64
    x = 2 * torch.rand(5, 1, 3, 112, 112) - 1
    with torch.inference_mode():
        expected = net(ImageFrontEnd(64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))(x[:, 0]))[1]
        torch.testing.assert_close(own.features(x)[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert own.features(x[:0]).shape == (0, 1, 8)


def test_what_a_file_does_not_say_must_be_named(tmp_path: Path) -> None:
    export(tmp_path / "n.onnx", dynamic_axes={"image": {0: "batch", 2: "h", 3: "w"}})
    with pytest.raises(SettingsError, match=r"the side of the images is not known.*Name --side"):
        OnnxEncoder(tmp_path / "n.onnx", OnnxSettings(output="embedding"))
    assert OnnxEncoder(tmp_path / "n.onnx", OnnxSettings(side=96, output="embedding")).width == 8
    with pytest.raises(SettingsError, match="several outputs; found 'none named'; expected logits or embedding"):
        OnnxEncoder(tmp_path / "n.onnx", OnnxSettings(side=96))
    (tmp_path / "text.onnx").write_text("network")
    for name, message in (("text.onnx", "is no ONNX file that onnxruntime can run"), ("none.onnx", "cannot be read")):
        with pytest.raises(RunError, match=message):
            OnnxEncoder(tmp_path / name, OnnxSettings())


def test_a_store_is_embedded_by_a_file(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(store, tmp_path / "store")
    net = export(tmp_path / "n.onnx", dynamic_axes={"image": {0: "batch"}})
    words = ["embed", str(tmp_path / "store"), "--encoder", f"onnx:{tmp_path / 'n.onnx'}", "--name", "emotions"]
    cpu = ["--accelerator", "cpu", "--workers", "1", "--stride", "0.5"]
    assert main([*words, *cpu]) == 2
    assert "several outputs" in capsys.readouterr().err.replace("\n", " ")
    assert main([*words, "--output", "embedding", *cpu]) == 0
    video = open_store(tmp_path / "store", EXPR).videos[0]
    row = int(np.flatnonzero(video.frames.has_crop)[0])
    image = decode_crop(video, row)
    assert image is not None
    with torch.inference_mode():
        expected = net(ImageFrontEnd(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))((image / 127.5 - 1)[None]))[1][0]
    np.testing.assert_allclose(video.embedding("emotions")[row], expected, atol=2e-3)
    assert main([*words, "--weights", "default", *cpu]) == 2
    assert "takes no --weights" in capsys.readouterr().err.replace("\n", " ")
