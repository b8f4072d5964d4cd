"""Temporal models over the features of stretches of frames, and their registry.

Shapes: S stretches, T frames of a stretch, D features, D' features that come out, n valid frames.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import weight_norm

from abaw_expr.models.batch_norm import FrameNorm
from abaw_expr.models.encoders.lstm import PortableLSTM


class Temporal(nn.Module):
    """A model over time: features [S, T, D] to [S, T, `width`].

    `valid`, bool [S, T], is false for the frames beyond the end of a short stretch, which come last and have features
    of 0. No frame depends on them.
    """

    width: int
    """Features of a frame that come out, D'."""
    causal = True
    """Whether a frame depends on itself and those before it only."""

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        raise NotImplementedError


class LSTM(Temporal):
    """A long short-term memory of one direction (D: 256 units); it has no dropout."""

    def __init__(self, inputs: int, dropout: float, units: int = 256) -> None:
        super().__init__()
        self.lstm = PortableLSTM(inputs, units, batch_first=True)
        self.width = units

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        if not len(x):  # torch's LSTM refuses a batch of nothing; parameters and what is before it stay in the graph
            return x.new_zeros(0, x.shape[1], self.width) + x.sum() + 0 * sum(p.sum() for p in self.parameters())
        return self.lstm(x)[0]


class BiLSTM(Temporal):
    """A long short-term memory in each direction, side by side (D: 128 units each); a frame sees its whole stretch."""

    causal = False

    def __init__(self, inputs: int, dropout: float, units: int = 128) -> None:
        super().__init__()
        self.forwards, self.backwards = LSTM(inputs, dropout, units), LSTM(inputs, dropout, units)
        self.width = 2 * units

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        frame = torch.arange(x.shape[1], device=x.device)
        from_end = valid.sum(1, keepdim=True) - 1 - frame  # [S, T]; the frames beyond the end stay where they are
        turned = torch.where(valid, from_end, frame)[..., None]
        back = self.backwards(x.take_along_dim(turned, 1), valid).take_along_dim(turned, 1)
        return torch.cat([self.forwards(x, valid), back], dim=2)


class TCNBlock(nn.Module):
    """Two causal dilated convolutions and a shortcut, [S, D, T] to [S, `outputs`, T].

    Convolution with weight normalisation and zeros before the stretch, activation, dropout, twice; plus the input, by a
    1x1 convolution where the widths differ; activation (Bai, Kolter and Koltun, arXiv 1803.01271).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, dilation: int, dropout: float, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv1d(inputs, outputs, kernel, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(outputs, outputs, kernel, dilation=dilation))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)
        self.activation, self.dropout = activation(), nn.Dropout(dropout)
        self._before = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.conv1, self.conv2):
            y = self.dropout(self.activation(conv(pad(y, (self._before, 0)))))
        return self.activation(y + self.shortcut(x))


def tcn_stack(
    inputs: int,
    channels: Sequence[int],
    dropout: float,
    kernel: int = 5,
    activation: type[nn.Module] = nn.LeakyReLU,
) -> nn.Sequential:
    """Blocks with dilations 1, 2, 4, ..., [S, D, T] to [S, channels[-1], T]."""
    widths = [inputs, *channels]
    return nn.Sequential(
        *(
            TCNBlock(before, after, kernel, 2**number, dropout, activation)
            for number, (before, after) in enumerate(zip(widths, channels, strict=False))
        )
    )


class TCN(Temporal):
    """A temporal convolutional network, then BN over the valid frames.

    Four causal blocks to D / 2, D / 2, D / 4 and D / 4 channels, kernel 5, dilations 1 to 8: the widths of the
    leader-follower network (arXiv 2503.10523) for its 512 and 128 features. A frame sees 121 frames.
    """

    def __init__(self, inputs: int, dropout: float) -> None:
        super().__init__()
        channels = (inputs // 2, inputs // 2, inputs // 4, inputs // 4)
        self.stack, self.width = tcn_stack(inputs, channels, dropout), channels[-1]
        self.norm = FrameNorm(self.width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.stack(x.transpose(1, 2)).transpose(1, 2)  # [S, T, D']
        known = self.norm(x[valid])  # [n, D']
        return torch.zeros_like(x).masked_scatter(valid[..., None], known.to(x.dtype))


TEMPORALS: dict[str, Callable[[int, float], Temporal]] = {"lstm": LSTM, "bilstm": BiLSTM, "tcn": TCN}
"""By name: from the number of features and the dropout to the model; a new one is added here, `none` is none."""
NO_TEMPORAL = "none"
