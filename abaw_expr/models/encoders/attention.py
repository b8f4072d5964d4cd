"""What every attention over a feature map is. Shapes: B batch, C channels, H x W positions."""

from torch import Tensor, nn

from abaw_expr.errors import SettingsError

REDUCTION = 4
"""Attentions narrow to a quarter of the channels (S, sections 3.3.1 and 3.3.3)."""


class Attention(nn.Module):
    """Weighs a feature map by what is in it: [B, C, H, W] to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def check_channels(channels: int, groups: int = 1) -> None:
    """Raises SettingsError where a feature map's channels cannot be narrowed to a quarter, in so many groups."""
    if channels % (REDUCTION * groups):
        raise SettingsError(
            f"attention in {groups} group(s) does not fit the channels of this feature map",
            found=channels,
            expected=f"a multiple of {REDUCTION * groups}",
            remedy="Change the width of the feature map, or model.attention-groups.",
        )
