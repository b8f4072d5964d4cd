"""Branches of one network for each column of the task, such as one for valence and one for arousal.

Shapes: B samples, C columns of the task.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from abaw_expr.models.branch import Branch, Inputs
from abaw_expr.models.links import Link, Votes, link_of
from abaw_expr.settings import BranchSettings, Settings


class ColumnNetworks(nn.Module):
    """A branch of C networks without anything in common, each of which votes on one column of the task.

    They have the same layers and different initial weights.
    """

    def __init__(self, name: str, settings: BranchSettings, model: Settings, link: Link) -> None:
        super().__init__()
        pairs = zip(link.task.columns, link.task.fields, strict=True)
        tasks = {column: replace(link.task, columns=(column,), fields=(field,)) for column, field in pairs}
        self.networks = nn.ModuleDict({key: Branch(name, settings, model, link_of(one)) for key, one in tasks.items()})

    def forward(self, batch: Inputs) -> Votes:
        """The votes of all networks side by side, [B, C, ...]."""
        votes = [network(batch) for network in self.networks.values()]
        return Votes(torch.cat([vote.value for vote in votes], 1), votes[0].present)

    def by_column(self) -> dict[str, Branch]:
        """The networks by the column that they vote on."""
        return {column: one for column, one in self.networks.items() if isinstance(one, Branch)}


def build_branch(name: str, settings: BranchSettings, model: Settings, link: Link) -> Branch | ColumnNetworks:
    """The branch of that name, of one network or one for each column."""
    return (ColumnNetworks if settings.networks == "each" else Branch)(name, settings, model, link)


def networks_of(branches: Mapping[str, nn.Module]) -> dict[str, dict[str, Branch]]:
    """The networks of every branch by the column that they vote on; the one that votes on all is called ``."""
    found: dict[str, dict[str, Branch]] = {}
    for name, branch in branches.items():
        if isinstance(branch, ColumnNetworks):
            found[name] = branch.by_column()
        elif isinstance(branch, Branch):
            found[name] = {"": branch}
    return found
