"""The layers of a network and their cost.

Shapes: C x H x W one view of a sample.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from abaw_expr.models.branch import Branch
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.join import Join
from abaw_expr.models.network import outline
from abaw_expr.models.temporal import Temporal
from abaw_expr.settings import Settings


def describe(settings: Settings) -> dict[str, Any]:
    """Parameters and multiply-adds (of the convolutions and linear layers, for one sample) of every branch.

    Ready for JSON: `parameters` and `multiply_adds` by the branch's encoder, or by its name where it has several
    streams or another branch has the encoder too, and `layers`, a list for each of `name`, `kind`, `output` ([C, H, W],
    without the batch), `parameters` and `multiply_adds`. Nothing is computed: the networks are on the meta device. A
    temporal model is counted for one frame. Where each column has a network, names of layers begin with the column's.
    """
    networks = outline(settings).eval().own_networks()
    with torch.device("meta"):
        layers = {name: _layers_of(own) for name, own in _by_encoder(networks).items()}
    totals = {
        key: {name: sum(row[key] for row in rows) for name, rows in layers.items()}
        for key in ("parameters", "multiply_adds")
    }
    return {**totals, "layers": layers}


def _by_encoder(branches: Mapping[str, Mapping[str, Branch]]) -> dict[str, Mapping[str, Branch]]:
    first = {name: next(iter(networks.values())) for name, networks in branches.items()}
    encoders = {name: [_name(stream.encoder) for stream in one.own_streams()] for name, one in first.items()}
    alone = [own[0] for own in encoders.values() if len(own) == 1]
    return {
        own[0] if len(own) == 1 and alone.count(own[0]) == 1 else name: branches[name] for name, own in encoders.items()
    }


def _name(encoder: Encoder) -> str:
    return encoder.entry.rpartition(":")[2]


def _layers_of(networks: Mapping[str, Branch]) -> list[dict[str, Any]]:
    """The layers of the networks of a branch."""
    return [
        row | {"name": f"{column}.{row['name']}" if column else row["name"]}
        for column, network in networks.items()
        for row in _layers(network)
    ]


def _layers(branch: Branch) -> list[dict[str, Any]]:
    """The layers of a branch, in the order that they are computed in."""
    rows, streams = [], branch.own_streams()
    for name, stream in zip(branch.streams, streams, strict=True):
        prefix = f"{name}." if len(streams) > 1 else ""
        x, encoder = torch.empty(1, *stream.encoder.input_shape), stream.encoder
        # A front end has no parameters, and is no layer.
        layers = ((part, layer) for part, layer in encoder.named_children() if [*layer.parameters()])
        own = {f"{prefix}{part}": layer for part, layer in layers}
        rows += _measured(own, encoder, (x,))
        rows += _over_time(f"{prefix}temporal", stream.temporal)
    if branch.join is not None:
        rows += _measured({"join": branch.join}, branch.join, _for_join(branch.join, branch))
    rows += _over_time("temporal", branch.temporal)
    return rows + _measured({"head": branch.head}, branch.head, (torch.empty(1, branch.head_width),))


def _for_join(join: Join, branch: Branch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One sample, which has all streams."""
    streams = dict(zip(branch.streams, branch.own_streams(), strict=True))
    present = torch.ones(1, len(streams), dtype=torch.bool)
    if join.of_maps:
        return {name: one.encoder(torch.empty(1, *one.encoder.input_shape)) for name, one in streams.items()}, present
    return {name: torch.empty(1, one.width) for name, one in streams.items()}, present


def _over_time(name: str, temporal: Temporal | None) -> list[dict[str, Any]]:
    """The row of a temporal model, if there is one."""
    if temporal is None:
        return []
    row = _row(name, temporal, [temporal.width], 0)
    stack = [layer for layer in temporal.modules() if isinstance(layer, nn.Conv1d | nn.LSTM)]
    weights = [p for layer in stack for p in layer.parameters() if p.ndim > 1 and p.shape[1:].numel() > 1]
    return [row | {"multiply_adds": sum(p.numel() for p in weights)}]


def _measured(layers: Mapping[str, nn.Module], whole: nn.Module, inputs: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Rows of layers of a module, measured while it runs on the inputs of one sample."""
    outputs: dict[str, list[int]] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: _shape(output)}))
    with FlopCounterMode(display=False) as counter:
        whole(*inputs)
    counts = counter.get_flop_counts()
    return [_row(name, layer, outputs[name][1:], _flops(counts, whole, layer) // 2) for name, layer in layers.items()]


def _shape(output: torch.Tensor | tuple[torch.Tensor, ...]) -> list[int]:
    """The shape of what a layer gives; of an LSTM without its state."""
    return list(output.shape if isinstance(output, torch.Tensor) else output[0].shape)


def _flops(counts: Mapping[str, Mapping[Any, int]], whole: nn.Module, layer: nn.Module) -> int:
    """The operations of a layer, which is the module itself or one of its children."""
    path = next((f".{name}" for name, child in whole.named_children() if child is layer), "")
    return sum(counts.get(f"{type(whole).__name__}{path}", {}).values())


def _row(name: str, layer: nn.Module, output: list[int], multiply_adds: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": _kind(layer),
        "output": output,
        "parameters": sum(parameter.numel() for parameter in layer.parameters()),
        "multiply_adds": multiply_adds,
    }


def _kind(layer: nn.Module) -> str:
    """The class of a layer; for a plain sequence, the classes of its layers, such as `2 x RHBlock`."""
    if type(layer) is not nn.Sequential:
        return type(layer).__name__
    runs = [(kind, len(list(run))) for kind, run in groupby(_kind(child) for child in layer)]
    return ", ".join(kind if count == 1 else f"{count} x {kind}" for kind, count in runs)
