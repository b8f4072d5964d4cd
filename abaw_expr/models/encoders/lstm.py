"""An LSTM that also runs under autocast to bfloat16 on a CPU without units for it."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 by itself."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class PortableLSTM(nn.LSTM):
    """torch's LSTM, in float32 where the CPU cannot do otherwise: oneDNN emulates bfloat16 in other layers only."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        if x.device.type != "cpu" or cpu_has_bfloat16() or not torch.is_autocast_enabled("cpu"):
            return super().forward(x, hx)  # type: ignore[has-type]
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float(), hx)  # type: ignore[has-type]
