"""The visual branch's encoder. Shapes: B batch, C channels, H x W pixels."""

from types import MappingProxyType

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.models.encoders.encoder import Encoder, he_initialise
from abaw_expr.models.encoders.gcsa import SHUFFLE_GROUPS

INPUT_SHAPE = (3, CROP_SIDE, CROP_SIDE)
"""One RGB face crop."""
WIDTH = 256
"""Features of an image (D)."""
MIDDLE_WIDTH = 128
"""Channels of the map of 14 x 14 (D)."""


class RHBlock(nn.Module):
    """Residual hybrid block, [B, inputs, H, W] to [B, outputs, H/stride, W/stride].

    S (arXiv 2503.11935, section 3.2): 1x1, depthwise separable 3x3, 1x1, then a channel mixing. D: half the width
    inside, the stride in the depthwise convolution, a dense 1x1 shortcut where the shape changes.

    `groups` groups all three 1x1 convolutions of the main path (D: 1). A shuffle before a dense convolution only
    renames channels; where every 1x1 is grouped, the shuffle is what carries information from group to group.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        hidden = outputs // 2
        self.main = nn.Sequential(
            Conv2dNormActivation(inputs, hidden, 1, groups=groups),
            Conv2dNormActivation(hidden, hidden, 3, stride, groups=hidden, activation_layer=None),
            Conv2dNormActivation(hidden, hidden, 1, groups=groups),
            Conv2dNormActivation(hidden, outputs, 1, groups=groups, activation_layer=None),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else Conv2dNormActivation(inputs, outputs, 1, stride, activation_layer=None)
        )
        self.mix = nn.Sequential(nn.ReLU(inplace=True), nn.ChannelShuffle(SHUFFLE_GROUPS))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.main(x) + self.shortcut(x))


class RHCNN(Encoder):
    """Residual hybrid convolutional network, images [B, 3, 112, 112] to a feature map [B, 256, 7, 7].

    S (arXiv 2503.11935, section 3.2): two N x N convolution blocks, then residual blocks with channel mixing. D: N = 3,
    widths and strides.
    """

    modality = "visual"
    width = WIDTH
    input_shape = INPUT_SHAPE
    places = MappingProxyType({"last": WIDTH, "middle": MIDDLE_WIDTH})

    def __init__(self, mixing_groups: int = 1) -> None:
        super().__init__()
        self.stem1 = Conv2dNormActivation(3, 32, 3, stride=2)
        self.stem2 = Conv2dNormActivation(32, 64, 3, stride=2)
        self.stage1 = _stage(64, 64, 1, mixing_groups)
        self.stage2 = _stage(64, MIDDLE_WIDTH, 2, mixing_groups)
        self.stage3 = _stage(MIDDLE_WIDTH, WIDTH, 2, mixing_groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem2(self.stem1(x))  # [B, 64, 28, 28]
        x = self.attended(self.stage2(self.stage1(x)), "middle")  # [B, 128, 14, 14]
        return self.attended(self.stage3(x), "last")  # [B, 256, 7, 7]

    def initialise(self) -> None:
        he_initialise(self)


def _stage(inputs: int, outputs: int, stride: int, groups: int) -> nn.Sequential:
    return nn.Sequential(RHBlock(inputs, outputs, stride, groups), RHBlock(outputs, outputs, groups=groups))
