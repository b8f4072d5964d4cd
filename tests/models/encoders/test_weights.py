"""Files of pretrained weights: every form is read, none runs code, and what does not fit is named."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from abaw_expr.errors import RunError
from abaw_expr.models.encoders.weights import KeyMap, fit, read_tensors
from abaw_expr.models.encoders.weights_path import weights_path


class Net(nn.Module):
    """Layers as the pickled modules of public code hold them; `networks.Mixed.Net` while it is pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.PReLU(4))
        self.more = nn.ModuleList([nn.Linear(2, 2)])


class Code:
    """What a pickle runs that should not be loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    package, module = ModuleType("networks"), ModuleType("networks.Mixed")
    for name, one in (("networks", package), ("networks.Mixed", module)):
        monkeypatch.setitem(sys.modules, name, one)
    monkeypatch.setattr(module, "Net", Net, raising=False)
    monkeypatch.setattr(Net, "__module__", "networks.Mixed")
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("form", ["state", "checkpoint", "wrapped twice", "devices", "module", "old", "safetensors"])
def test_every_form_is_read(net: Net, form: str, tmp_path: Path) -> None:
    path, state = tmp_path / "file", net.state_dict()
    values = {
        "state": state,
        "old": state,
        "checkpoint": {"iter": 3, "model_state_dict": state, "optimizer_state_dict": {"step": 1}},
        "wrapped twice": {"epoch": 1, "model": {"state_dict": state}},
        "devices": {f"module.{key}": tensor for key, tensor in state.items()},
        "module": net,
    }
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(values[form], path, _use_new_zipfile_serialization=form != "old")
    found = read_tensors(path)
    assert found.keys() == state.keys()
    assert all(found[key].equal(tensor) for key, tensor in state.items())


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("inside", ["alone", "among tensors"])
def test_a_file_that_would_run_code_is_refused(new: bool, inside: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "ran"
    values = Code(mark) if inside == "alone" else {"a": torch.zeros(2), "b": Code(mark)}
    torch.save(values, path, _use_new_zipfile_serialization=new)
    with pytest.raises(
        RunError, match=r"would run code when it is loaded; found 'a pickle that asks for posix\.system"
    ):
        read_tensors(path)
    assert not mark.exists()


def test_damage_is_told(net: Net, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "whole")
    data = bytearray((tmp_path / "whole").read_bytes())
    place = data.index(net.state_dict()["more.0.weight"].numpy().tobytes())
    data[place] ^= 1
    for name, content, message in (
        ("flipped", bytes(data), "is damaged"),
        ("cut", bytes(data[:-30]), "is damaged"),
        ("text", b"weights", "is no file of weights"),
        ("empty", b"", "is no file of weights"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RunError, match=f"{name}: {message}"):
            read_tensors(tmp_path / name)
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "none")
    with pytest.raises(RunError, match=r"none: is no file of weights; found 'epoch, loss'; expected tensors by name"):
        read_tensors(tmp_path / "none")


def test_official_names_are_mapped_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    encoder, path = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), tmp_path / "w"
    naming = KeyMap({r"^(\d)\.": r"layers.\1.fc."}, (r"classifier\..*",))
    official = {naming.official(key): tensor + 1 for key, tensor in encoder.state_dict().items()}
    assert sorted(official) == ["layers.0.fc.bias", "layers.0.fc.weight", "layers.1.fc.bias", "layers.1.fc.weight"]
    fit(encoder, official | {"classifier.bias": torch.zeros(9)}, path, [naming])
    assert all(encoder.state_dict()[key].equal(official[naming.official(key)]) for key in encoder.state_dict())
    fit(encoder, {key: tensor - 1 for key, tensor in encoder.state_dict().items()}, path, [naming])
    less = {key: tensor for key, tensor in official.items() if key != "layers.1.fc.bias"}
    renamed = less | {"layers.1.fc.beta": torch.zeros(1)}
    for found, problem in (
        (less, "layers.1.fc.bias is missing"),
        (official | {"extra": torch.zeros(1)}, "extra is unknown"),
        (renamed, "layers.1.fc.bias is missing, layers.1.fc.beta is unknown"),
        (official | {"layers.1.fc.bias": torch.zeros(2)}, "layers.1.fc.bias has [2], not [1]"),
    ):
        with pytest.raises(RunError, match=r"does not fit the encoder of branches\.a\.b") as error:
            fit(encoder, found, path, [naming], "branches.a.b")
        assert error.value.found == problem


def test_a_file_inside_a_package_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "carrier/deep").mkdir(parents=True)
    (tmp_path / "carrier/__init__.py").write_text("raise ImportError")
    (tmp_path / "carrier/deep/w.pt").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert weights_path("package:carrier/deep/w.pt") == tmp_path / "carrier/deep/w.pt"
    assert weights_path("some/w.pt") == Path("some/w.pt")
    for name in ("package:nothing-of-it/w.pt", "package:not_installed_here/w.pt", "package:carrier/../w.pt"):
        with pytest.raises(RunError, match="package that is not installed"):
            weights_path(name)
