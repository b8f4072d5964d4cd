"""Modules of the systems give what public code gives: golden values in float64, every tensor in its own place."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from abaw_expr.models.cross_modal_attention import CrossModalAttention
from abaw_expr.models.dilated_fusion import DilatedFusion
from abaw_expr.models.encoders.ddamfn import DDAMFN, Bottleneck, DualDirectionHead
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.encoders.mecs import MECS
from abaw_expr.models.encoders.vggish import VGGish
from abaw_expr.models.encoders.weights import key_map
from abaw_expr.models.join import JOINS
from abaw_expr.models.temporal import TCN, TCNBlock, tcn_stack
from abaw_expr.settings import ModelSettings
from tests.helpers.golden_modules import FILLINGS, cases_of, left_over, output, summary
from tests.helpers.networks import parameters


class Public(NamedTuple):
    """A module of ours beside public code."""

    build: Callable[[str], nn.Module]
    """From the name of a case, which says the sizes."""
    rename: dict[str, str]
    """From our names of tensors to the public ones, as regular expressions."""
    other: tuple[str, ...] = ()
    """Cases, by the end of their names, that are another order of the same tensors, and not ours."""
    unused: tuple[str, ...] = ()
    """Public names, as regular expressions, of tensors that are never computed, which ours has not."""

    def name(self, key: str) -> str:
        """The public name of one of our tensors."""
        for ours, theirs in self.rename.items():
            key = re.sub(ours, theirs, key)
        return key


def numbers(name: str) -> list[int]:
    """The numbers in the name of a case."""
    return [int(part) for part in re.findall(r"\d+", name)]


def tcn(name: str) -> nn.Module:
    """A block such as `block_16to8_k5_d2_leaky`, or a stack such as `sound_128_64_64_32_32`."""
    activation = nn.ReLU if "relu" in name else nn.LeakyReLU
    first, second, *rest = numbers(name)
    if "block" in name:
        return TCNBlock(first, second, rest[0], rest[1], 0.1, activation)
    return tcn_stack(first, [second, *rest], 0.1, 5, activation)


def dilated(name: str) -> nn.Module:
    """A fusion such as `c128to64_7x7_d1_2_3`."""
    channels = numbers(name.split("_")[0])
    return DilatedFusion(channels[0], channels[-1], numbers(name.split("_d")[1]))


class Classified(nn.Module):
    """DDAMFN with a linear layer, on images with ImageNet's statistics, and what it does on the way."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder, self.fc = DDAMFN(), nn.Linear(DDAMFN.width, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        heads = {f"head{number}": head for number, head in enumerate(self.encoder.heads)}
        for name, layer in {"features": self.encoder.stage3, **heads}.items():
            layer.register_forward_hook(lambda _, __, y, name=name: found.update({name: y}))
        return {"logits": self.fc(self.encoder.embed(x).mean((2, 3)))} | found


PARTS: dict[str, Callable[[], nn.Module]] = {
    "bottleneck_64_g128_357_s2": lambda: Bottleneck(64, 64, {3: 64, 5: 32, 7: 32}, stride=2),
    "bottleneck_64_g128_35_residual": lambda: Bottleneck(64, 64, {3: 96, 5: 32}),
    "bottleneck_128to256_g1024_3579_s2": lambda: Bottleneck(128, 256, {3: 256, 5: 256, 7: 256, 9: 256}, stride=2),
    "bottleneck_256_g512_357_residual": lambda: Bottleneck(256, 256, {3: 172, 5: 170, 7: 170}),
    "dual_direction_head_512": lambda: DualDirectionHead(512),
}
"""Layers of DDAMFN."""


class Sounds(nn.Module):
    """VGGish on windows of its log-mel, and what it does on the way."""

    def __init__(self, last_relu: bool) -> None:
        super().__init__()
        self.encoder = VGGish(last_relu)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": self.encoder.layers(x), "embedding": self.encoder.embed(x)}


class Attention(nn.Module):
    """The attention on features [B, T, D], and what it does on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = CrossModalAttention([128, 32, 32], 0.1)

    def forward(self, *streams: Tensor) -> dict[str, Tensor]:
        rows, present = [x.flatten(0, 1) for x in streams], torch.ones(streams[0].shape[:2].numel(), 3).bool()
        mixed: list[Tensor] = []
        self.attention.mix.register_forward_hook(lambda layer, inputs, y: mixed.append(y))
        attended, (weights, _) = self.attention(rows, present), self.attention.attend(rows, present)
        found = {"after_o_proj": mixed[0], "after_layernorm": attended, "attention": weights}
        over_time = {name: y.unflatten(0, streams[0].shape[:2]) for name, y in found.items()}
        return over_time | {"attention": over_time["attention"].transpose(1, 2)}


class Head(nn.Module):
    """All behind the encoders of the leader-follower network, on features [B, T, D]: one value a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.temporal = nn.ModuleList(TCN(width, 0.1) for width in (512, 128, 128))
        self.join = JOINS["cross-attention"]([128, 32, 32], ModelSettings())
        self.linear = nn.Linear(self.join.width, 1)

    def forward(self, *streams: Tensor) -> Tensor:
        valid = torch.ones(streams[0].shape[:2], dtype=torch.bool)
        features = [temporal(x, valid).flatten(0, 1) for temporal, x in zip(self.temporal, streams, strict=True)]
        joined = self.join(dict(zip(STREAMS, features, strict=True)), torch.full((valid.numel(), 3), 1 / 3))
        return self.linear(joined).tanh().unflatten(0, valid.shape)


TCN_NAMES = {
    r"parametrizations\.weight\.original0": "weight_g",
    r"parametrizations\.weight\.original1": "weight_v",
    "shortcut": "downsample",
}
STREAMS = ("video", "vggish", "logmel")
"""The streams of the leader-follower network."""

PUBLIC = {
    "tcn": Public(tcn, TCN_NAMES | {r"^(\d)": r"network.\1"}),
    "gcsa": Public(
        lambda name: GCSA(numbers(name)[0]), {r"^channel\.": "channel_attention.", r"^spatial\.": "spatial_attention."}
    ),
    "mecs": Public(
        lambda name: MECS(numbers(name)[0], "sequential" if name.endswith("sequential_strips") else "parallel"),
        {
            r"^point\.": "pointwise_conv.",
            r"^channel\.0\.": "channel_attention.fc1.",
            r"^channel\.2\.": "channel_attention.fc2.",
            r"^window\.": "initial_depth_conv.",
            **{rf"^along_w\.{n}\.": f"depth_convs.{2 * n}." for n in range(3)},
            **{rf"^along_h\.{n}\.": f"depth_convs.{2 * n + 1}." for n in range(3)},
        },
        ("cpca_order",),
    ),
    "dilated_fusion": Public(
        dilated,
        {
            **{rf"^local\.{n}\.": f"branch{n + 1}." for n in range(4)},
            r"^whole\.0\.": "branch5_conv.",
            r"^whole\.1\.": "branch5_bn.",
            r"^out\.": "conv_cat.",
            r"^picture_gate\.": "Hebing.tongdao.fc.",
            r"^position_gate\.": "Hebing.kongjian.Conv1x1.",
        },
    ),
    "ddamfn": Public(
        lambda name: Classified(*numbers(name)),
        {r"^encoder\.": "", **key_map("ddamfn").rename},
        unused=key_map("ddamfn").unused,
    ),
    "ddamfn_parts": Public(
        lambda name: PARTS[name](),
        {r"^(?=rows|columns|squeeze|along)": "CoordAtt.", **key_map("ddamfn").rename},
        unused=(r"conv_dw\.(bn|prelu)\..*", r"CoordAtt\.Linear\..*"),
    ),
    "vggish": Public(
        lambda name: Sounds(last_relu=name == "torchvggish_final_relu"),
        {r"^encoder\.": "", **key_map("vggish").rename},
    ),
    "cross_modal_attention": Public(
        lambda name: Head() if name.startswith("whole") else Attention(),
        {
            **TCN_NAMES,
            r"^attention\.": "layers.",
            r"^join\.attention\.": "fusion.layers.",
            r"^linear\.": "regressor.",
            r"mix\.": "self_attn.o_proj.",
            r"layers\.norm\.": "layers.norm1.",
            **{rf"project\.{n}\.": f"self_attn.qkv_proj.{name}." for n, name in enumerate(STREAMS)},
            **{rf"^temporal\.{n}\.norm\.": f"bn.{name}." for n, name in enumerate(STREAMS)},
            **{rf"^temporal\.{n}\.stack\.": f"temporal.{name}.network." for n, name in enumerate(STREAMS)},
        },
    ),
}
CASES = [(file, case) for file, public in PUBLIC.items() for case in cases_of(file) if not case.endswith(public.other)]


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize(("file", "name"), CASES)
def test_it_gives_what_public_code_gives(file: str, name: str, filling: str) -> None:
    public, case = PUBLIC[file], cases_of(file)[name]
    module = public.build(name)
    left = left_over(module, case["tensors"], public.name)
    assert not [key for key in left if not any(re.fullmatch(unused, key) for unused in public.unused)]
    assert parameters(module) == case["parameters"] - sum(left.values())
    found, expected = output(module, case, filling, public.name), case["outputs"][filling]
    if isinstance(expected, list):  # one output, without a name
        found, (expected,) = {"": found}, [{"": one} for one in expected]
    assert found.keys() == expected.keys()
    for key, one in expected.items():
        compare(summary(found[key], one["stride"]), one)


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal to 1e-9."""
    assert found.keys() == expected.keys()
    for key, values in found.items():
        assert values == pytest.approx(expected[key], rel=0, abs=1e-9), key
