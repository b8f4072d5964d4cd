"""Batches of drawn samples, as tests and benchmarks read them."""

from abaw_expr.data.batches.frames import Draws


def split_batches(draws: Draws, size: int) -> list[Draws]:
    """Draws in batches of `size`; the last may be smaller."""
    return [draws[start : start + size] for start in range(0, len(draws), size)]
