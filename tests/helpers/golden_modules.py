"""Golden values of modules that public code gave: how their tensors are filled, and what is compared.

tests/golden/*.json of a module says where its values come from.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.paths import GOLDEN

FILLINGS = ("by_shape", "by_key")
BUFFERS = ("mean", "var", "count")
"""Roles of tensors that are no parameters."""
INPUT_FACTOR, TENSOR_FACTOR = 2246822519, 2654435761


def cases_of(file: str) -> dict[str, Any]:
    """The cases of a golden file, by name."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{file}.json").read_text())["cases"]
    return found


def output(module: nn.Module, case: dict[str, Any], filling: str, public: Callable[[str], str]) -> Any:
    """What a module in evaluation gives for the inputs of a case: a tensor, or several by name.

    `public` gives the public name of our tensor.
    """
    module.double().eval()
    fill(module, case["tensors"], filling == "by_key", public)
    with torch.inference_mode():
        return module(*(input_field(shape, number) for number, shape in enumerate(case["inputs"])))


def input_field(shape: Sequence[int], number: int) -> Tensor:
    """Input of a module, in [-1, 1), counted from 0."""
    return 2 * unit(torch.Size(shape).numel(), 1000003 * number, INPUT_FACTOR).reshape(shape) - 1


def summary(y: Tensor, stride: int) -> dict[str, Any]:
    """What is compared of an output."""
    flat = y.flatten()
    return {
        "shape": list(y.shape),
        "stride": stride,
        "first": flat[:8].tolist(),
        "strided": flat[::stride][:8].tolist(),
        "sum": flat.sum().item(),
        "norm": flat.norm().item(),
        "max": flat.max().item(),
        "min": flat.min().item(),
        "dot": (flat * (2 * unit(len(flat), 1, TENSOR_FACTOR) - 1)).sum().item(),
    }


@torch.no_grad()
def fill(module: nn.Module, tensors: Sequence[str], by_key: bool, public: Callable[[str], str]) -> None:
    """Gives every tensor its value; `tensors` has the public name, the shape and the role of each, in their order."""
    lines = {name: (place, role) for place, (name, _, role) in enumerate(line.split() for line in tensors)}
    for key, tensor in module.state_dict().items():
        place, role = lines.pop(public(key))
        tensor.copy_(value(role, tensor, 7919 * (place + 1) if by_key else 0))


def left_over(module: nn.Module, tensors: Sequence[str], public: Callable[[str], str]) -> dict[str, int]:
    """The public tensors that a module has not, by name: their numbers of parameters, 0 of statistics of BN."""
    own, found = {public(key) for key in module.state_dict()}, {}
    for name, shape, role in (line.split() for line in tensors):
        if name not in own:
            found[name] = 0 if role in BUFFERS else math.prod(map(int, shape.split("x")))
    return found


def value(role: str, tensor: Tensor, start: int) -> Tensor:
    """The value of a tensor by its role."""
    u = unit(tensor.numel(), start, TENSOR_FACTOR).reshape(tensor.shape)
    if role == "weight":
        return (2 * u - 1) * (3 / (tensor.numel() / len(tensor))) ** 0.5
    by_role = {
        "scale": 0.9 + 0.2 * u,
        "shift": 0.1 * (2 * u - 1),
        "slope": 0.2 + 0.1 * u,
        "mean": 0.1 * (2 * u - 1),
        "var": 0.8 + 0.4 * u,
    }
    return torch.zeros_like(tensor) if role == "count" else by_role[role]


def unit(count: int, start: int, factor: int) -> Tensor:
    """Numbers in [0, 1) that are exact in float64."""
    return ((torch.arange(count, dtype=torch.int64) + start) * factor % 2**32).double() / 2**32
