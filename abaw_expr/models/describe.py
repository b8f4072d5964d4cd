"""The layers of a network and their cost.

Shapes: C x H x W one view of a sample.
"""

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.models.network import Branch, build_branch
from abaw_expr.settings import ModelSettings
from abaw_expr.tasks.task import EXPR


def describe(settings: ModelSettings) -> dict[str, Any]:
    """Parameters and multiply-adds (of the convolutions and linear layers, for one sample) of every encoder and head.

    Ready for JSON: `parameters` and `multiply_adds` by network name, and `layers`, a list for each network of `name`,
    `kind`, `output` ([C, H, W], without the batch), `parameters` and `multiply_adds`. Nothing is computed: the networks
    are on the meta device.
    """
    with torch.device("meta"):
        branches = {name: build_branch(name, settings, EXPR.n_columns).eval() for name in settings.branches}
        layers = {
            type(branch.encoder).__name__.lower(): _layers(branch, torch.empty(1, *ENCODERS[name].input_shape))
            for name, branch in branches.items()
        }
    totals = {
        key: {name: sum(row[key] for row in rows) for name, rows in layers.items()}
        for key in ("parameters", "multiply_adds")
    }
    return {**totals, "layers": layers}


def _layers(branch: Branch, x: Tensor) -> list[dict[str, Any]]:
    """The layers of a branch with their outputs for the input `x`, [1, C, H, W]."""
    layers = {f"encoder.{name}": layer for name, layer in branch.encoder.named_children()} | {"head": branch.head}
    outputs: dict[str, list[int]] = {}
    for path, layer in layers.items():
        layer.register_forward_hook(lambda _, __, output, path=path: outputs.update({path: list(output.shape)}))
    with FlopCounterMode(display=False) as counter:
        branch(x)
    flops = {path: sum(counter.get_flop_counts()[f"{type(branch).__name__}.{path}"].values()) for path in layers}
    return [
        {
            "name": path.removeprefix("encoder."),
            "kind": _kind(layer),
            "output": outputs[path][1:],
            "parameters": sum(parameter.numel() for parameter in layer.parameters()),
            "multiply_adds": flops[path] // 2,
        }
        for path, layer in layers.items()
    ]


def _kind(layer: nn.Module) -> str:
    """The class of a layer; for a plain sequence, the classes of its layers, such as `2 x RHBlock`."""
    if type(layer) is not nn.Sequential:
        return type(layer).__name__
    runs = [(kind, len(list(run))) for kind, run in groupby(_kind(child) for child in layer)]
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in runs)
