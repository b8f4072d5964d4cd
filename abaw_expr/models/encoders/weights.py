"""Files of pretrained weights: read without running code from them, and fitted to an encoder as a whole.

Shapes: tensors have the shapes of the parameters and buffers of their encoder.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.serialization import safe_globals

from abaw_expr.errors import RunError, shorten, unreadable

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
"""Where checkpoints of training keep the tensors of their network."""
_MODULES = re.compile(r"torch\.nn\.modules\.\w+\.\w+|networks\.\w+\.\w+")
"""Classes of layers: of torch, and of the official networks of which whole modules were pickled."""
_ZIP, _PICKLE = b"PK", b"\x80"
"""The first bytes of what `torch.save` writes: a zip file, before torch 1.6 a row of pickles."""
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
"""The class or function that torch names where it refuses a pickle."""
_REMEDY = "Download the file again, or name another one."


@dataclass(frozen=True)
class KeyMap:
    """How an official file names the tensors of an encoder: data, one JSON file in `keys/` each."""

    rename: Mapping[str, str]
    """From our names to the official ones: regular expressions, applied in their order."""
    unused: tuple[str, ...] = ()
    """Official names, as regular expressions, of what the encoder has not: layers that are never computed, and the
    classifier."""

    def official(self, key: str) -> str:
        """The official name of one of our tensors."""
        for ours, theirs in self.rename.items():
            key = re.sub(ours, theirs, key)
        return key

    def is_unused(self, key: str) -> bool:
        """Whether an official tensor has no counterpart."""
        return any(re.fullmatch(pattern, key) for pattern in self.unused)


@cache
def key_map(name: str) -> KeyMap:
    """The key map of `keys/<name>.json`."""
    text = resources.files(__package__).joinpath("keys", f"{name}.json").read_text("utf-8")
    values = json.loads(text)
    return KeyMap(values["rename"], tuple(values.get("unused", ())))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: of safetensors, of `torch.save`, of a checkpoint or a pickled module with them.

    No code of the file is run. Raises RunError, with the reason, where it is damaged, is none of these, or would run
    code.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(RunError, path, error) from error
    try:
        values = _read_torch(data, path) if _is_torch(data) else load_safetensors(data)
    except (MemoryError, RunError):
        raise
    except SafetensorError as error:
        expected = "safetensors, or what torch.save writes"
        raise RunError("is no file of weights", path=path, found=str(error), expected=expected) from error
    except Exception as error:  # torch raises many types of error for bytes that it cannot read
        raise RunError("is damaged", path=path, found=str(error).split("\n")[0], remedy=_REMEDY) from error
    return _tensors(values, path)


def download(get: Callable[[], nn.Module], name: str) -> nn.Module:
    """A network as its library gives it, with the weights that it downloads or has downloaded before.

    Raises RunError where it cannot be had.
    """
    try:
        return get()
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # libraries of downloads raise many types of error
        remedy = "Name a file of weights, or try it where there is a network: the library keeps what it downloads."
        found = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".split("\n")[0]
        raise RunError(f"the default weights of {name} cannot be downloaded", found=found, remedy=remedy) from error


def fit(
    encoder: nn.Module, found: Mapping[str, Tensor], path: Path, maps: Sequence[KeyMap] = (), what: str = ""
) -> None:
    """Loads tensors into an encoder as a whole, by its own names or those of an official file.

    `what` names the setting. Raises RunError, with the keys, where a tensor is missing, unknown or of another shape.
    """
    own = encoder.state_dict()
    problems, named = min((_fitted(own, found, naming) for naming in (KeyMap({}), *maps)), key=lambda one: len(one[0]))
    if problems:
        expected = f"the {len(own)} tensors of {type(encoder).__name__}, each of its shape"
        raise RunError(
            f"does not fit the encoder{what and f' of {what}'}",
            path=path,
            found=shorten(problems, 6),
            expected=expected,
        )
    encoder.load_state_dict({key: found[official] for official, key in named.items()})


def _fitted(own: Mapping[str, Tensor], found: Mapping[str, Tensor], naming: KeyMap) -> tuple[list[str], dict[str, str]]:
    """What does not fit if a file has that naming, and our names by those of the file."""
    named = {naming.official(key): key for key in own}
    return [*_misfits({official: own[key] for official, key in named.items()}, found, naming)], named


def _misfits(own: Mapping[str, Tensor], found: Mapping[str, Tensor], naming: KeyMap) -> Iterable[str]:
    """What of a file's tensors does not fit an encoder's, in words, under the names of the file."""
    yield from (f"{key} is missing" for key in own if key not in found)
    yield from (f"{key} is unknown" for key in found if key not in own and not naming.is_unused(key))
    for key in own:
        if key in found and found[key].shape != own[key].shape:
            yield f"{key} has {list(found[key].shape)}, not {list(own[key].shape)}"


def _is_torch(data: bytes) -> bool:
    """Whether it is what `torch.save` writes; safetensors begin with a length of 8 bytes and a JSON object."""
    return data.startswith((_ZIP, _PICKLE)) and data[8:9] != b"{"


def _read_torch(data: bytes, path: Path) -> Any:
    if data.startswith(_ZIP):
        with ZipFile(io.BytesIO(data)) as file:  # torch does not compare the checksums
            damaged, scripted = file.testzip(), any(name.endswith("constants.pkl") for name in file.namelist())
        if scripted:
            remedy = "Save the state_dict of its network, or take the same weights as safetensors."
            raise RunError("is a TorchScript archive, which is code", path=path, remedy=remedy)
        if damaged is not None:
            raise RunError("is damaged", path=path, found=damaged, remedy=_REMEDY)
    stubs = dict[str, type[_Stub]]()
    while True:
        try:
            with safe_globals([(stub, name) for name, stub in stubs.items()]):
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            asked = _REFUSED.search(str(error))
            if asked is None or asked[1] in stubs:
                remedy = "Download it again. A whole module from before torch 1.6 must be saved again as a state_dict."
                raise RunError("is damaged, or holds more than tensors", path=path, remedy=remedy) from error
            if not _MODULES.fullmatch(asked[1]):
                found = f"a pickle that asks for {asked[1]}"
                remedy = "Do not use it, or save the state_dict of its network alone."
                raise RunError("would run code when it is loaded", path=path, found=found, remedy=remedy) from error
            stubs[asked[1]] = _stub(asked[1])


class _Stub:
    """Stands for a class of layers while a pickled module is read: it keeps what the layer held, and does nothing."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)


@cache
def _stub(name: str) -> type[_Stub]:
    return type(name.rpartition(".")[2], (_Stub,), {})


def _tensors(values: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of what was read, however they are wrapped."""
    while isinstance(values, Mapping) and not any(isinstance(value, Tensor) for value in values.values()):
        inside = next((values[name] for name in _WRAPPERS if name in values), None)
        if inside is None:
            break
        values = inside
    values = dict(_of_module(values)) if isinstance(values, _Stub) else values
    if not isinstance(values, Mapping) or not all(isinstance(value, Tensor) for value in values.values()):
        others = (
            [str(name) for name, value in values.items() if not isinstance(value, Tensor)]
            if isinstance(values, Mapping)
            else [type(values).__name__]
        )
        expected = f"tensors by name, or a dictionary that has them as {' or '.join(_WRAPPERS)}"
        raise RunError("is no file of weights", path=path, found=shorten(others), expected=expected)
    prefix = "module."  # of a network that was trained on several devices
    if values and all(name.startswith(prefix) for name in values):
        return {name.removeprefix(prefix): value for name, value in values.items()}
    return {**values}


def _of_module(module: _Stub, prefix: str = "") -> Iterable[tuple[str, Tensor]]:
    """The tensors of a pickled module by the names that its state would have."""
    held = vars(module)
    for name, tensor in {**held.get("_parameters", {}), **held.get("_buffers", {})}.items():
        if tensor is not None:
            yield prefix + name, tensor.detach()
    for name, child in held.get("_modules", {}).items():
        if child is not None:
            yield from _of_module(child, f"{prefix}{name}.")
