"""Batches of samples, as tests and benchmarks read them."""

from abaw_expr.data.batches.frame_index import Samples


def split_batches(samples: Samples, size: int) -> list[Samples]:
    """Samples in batches of `size`; the last may be smaller."""
    return [samples[start : start + size] for start in range(0, len(samples), size)]
