"""Averages the outputs of several runs on the same frames, as an ensemble.

Shapes: M members, T frames, C numbers of a row.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from abaw_expr.errors import OutputsError
from abaw_expr.outputs.joining import check_same, pool
from abaw_expr.outputs.table import Outputs, branch_columns, spread_column


def average(members: Sequence[Outputs]) -> Outputs:
    """The mean of every branch's probabilities, or values, over members with the same branches and frames.

    A member that has no row on a frame does not count there. The spread of a branch is kept as a column: the standard
    deviation over the members that have a row, as a mean over the C numbers. Raises OutputsError where branches, rows,
    labels or split differ.
    """
    first, *others = members
    for other in others:
        check_same(first, other)
        if [*other.branches] != [*first.branches]:
            found, expected = ", ".join(other.branches), ", ".join(first.branches)
            raise OutputsError("has other branches", path=other.path, found=found, expected=expected)
    table = first.table.copy()
    for name in first.branches:
        rows = np.stack([member.branch(name) for member in members]).astype(np.float64)  # [M, T, C]
        has = ~np.isnan(rows[..., :1])
        count = np.where(has.any(axis=0), has.sum(axis=0), np.nan)  # [T, 1]
        mean = np.where(has, rows, 0).sum(axis=0) / count
        deviation = np.sqrt((np.where(has, rows - mean, 0) ** 2).sum(axis=0) / count)
        table[branch_columns(name, first.task)] = mean.astype(np.float32)
        table[spread_column(name)] = deviation.mean(axis=1).astype(np.float32)
    branches = {name: pool([member.branches[name] for member in members]) for name in first.branches}
    return replace(first, table=table, branches=branches, paths=tuple(path for one in members for path in one.paths))
