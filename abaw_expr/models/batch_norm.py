"""Batch normalisation over few frames, and over all processes of a run, whose number does not change the training.

Shapes: B samples of one process, C channels, H x W positions (none of features over time).
"""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class FrameNorm(nn.BatchNorm1d):
    """BN over frames, [B, C], where torch refuses a single frame: it is its own mean, so the bias is left."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if len(x) > 1 or not self.training else 0 * x + self.bias + 0 * self.weight


class SharedBatchNorm(_BatchNorm):
    """BN with the mean and variance over the samples of all processes: [B, C, ...] -> [B, C, ...].

    torch's SyncBatchNorm needs a GPU. B may be 0: every process has to take part, even without samples.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        over, ones = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
        count = all_reduce(wide.new_tensor(wide.numel() / wide.shape[1]))
        mean = all_reduce(wide.sum(dim=over)) / count.clamp(min=1)
        centred = wide - mean.reshape(ones)
        variance = all_reduce(centred.square().sum(dim=over)) / count.clamp(min=1)
        if count > 1:
            self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias.reshape(ones), centred, scale.reshape(ones)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (the name that torch gives it)
        """torch asks this of its subclasses; any number of positions will do here."""

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


def share_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replaces every BN of a network by one over all processes; parameters and their names stay the same."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, _shared(child, device))


def _shared(norm: _BatchNorm, device: torch.device) -> nn.Module:
    kind = nn.SyncBatchNorm if device.type == "cuda" else SharedBatchNorm
    shared = kind(norm.num_features, norm.eps, norm.momentum)
    shared.load_state_dict(norm.state_dict())
    return shared
