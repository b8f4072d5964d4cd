"""Global channel-spatial attention.

Shapes: B batch, C channels, H x W positions (for audio T x F: time by mel row).
"""

from torch import Tensor, nn

from abaw_expr.models.encoders.attention import REDUCTION, Attention, check_channels

SHUFFLE_GROUPS = 4
"""Groups of the channel shuffle (S, section 3.3.2)."""


class GCSA(Attention):
    """Global channel-spatial attention, [B, C, H, W] to the same shape (arXiv 2503.11935, equations 3 to 5).

    Channel attention of every position, channel shuffle, spatial attention of every channel; 25 C^2 + 5 C parameters.
    Equation 5 and the text below it disagree on normalisation: this follows the text, BN after both convolutions and
    before the ReLU. `groups` groups the two 7x7 convolutions (S: 1), which hold 49 of every 50 parameters.

    Raises SettingsError where `channels` cannot be split in 4 x `groups`.
    """

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        check_channels(channels, groups)
        hidden = channels // REDUCTION
        # A linear layer over channels, at every position alone, is a 1x1 convolution: no permutation of memory.
        self.channel = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
        )
        self.shuffle = nn.ChannelShuffle(SHUFFLE_GROUPS)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 7, padding=3, groups=groups),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 7, padding=3, groups=groups),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.shuffle(x * self.channel(x).sigmoid())  # [B, C, H, W]
        return x * self.spatial(x).sigmoid()
