"""Mixes stores for one run: the first store as it is, and a fraction of an epoch's samples from each other one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from abaw_expr.data.store.store import Extra, Store, open_store
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import digest
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import Task


def open_mixture(texts: Sequence[str], task: Task) -> Store:
    """Opens stores given as `main ravdess=0.3 ck=0.1`.

    Raises StoreError where one is no complete store of this task, a fraction is missing, and as `mix` does.
    """
    first, *others = texts
    return mix(open_store(Path(first), task), [_open_extra(text, task) for text in others])


def mix(main: Store, extras: Sequence[Extra]) -> Store:
    """The main store with others beside it; its digest is that of all stores and their fractions.

    Raises StoreError where the fractions leave nothing to the main store, a store comes twice, or a store would train
    on recordings that the main store validates or tests on.
    """
    if not extras:
        check_extras(main, [])
        return main
    fractions = [extra.fraction for extra in extras]
    if min(fractions) <= 0 or sum(fractions) >= 1:
        found = ", ".join(f"{fraction:g}" for fraction in fractions)
        raise StoreError(
            "the stores' fractions cannot be used", found=found, expected="each above 0, their sum below 1"
        )
    digests = {main.digest}
    for extra in extras:
        if extra.store.digest in digests:
            raise StoreError("is named twice", path=extra.store.root, remedy="Name each store once.")
        digests.add(extra.store.digest)
    check_extras(main, extras)
    identity = digest([main.digest, [[extra.store.digest, extra.fraction] for extra in extras]])
    return replace(main, digest=identity, extras=tuple(extras))


def check_extras(main: Store, extras: Sequence[Extra]) -> None:
    """Raises StoreError where one of these stores would train on a recording that the first holds out, or on clips
    that were generated from one."""
    held_out = {recording_of(video.name) for video in main.videos if video.split != "train"}
    for store in (main, *(extra.store for extra in extras)):
        training = [video for video in store.videos if video.split == "train"]
        _refuse(store, {name for video in training for name in video.generated_from} & held_out, generated=True)
        if store is not main:
            _refuse(store, {recording_of(video.name) for video in training} & held_out, generated=False)


def _refuse(store: Store, both: set[str], generated: bool) -> None:
    """Raises StoreError where there is a recording that the run both learns from and holds out."""
    if not both:
        return
    what = "clips generated from" if generated else ""
    problem = f"would train on {what} {len(both)} recordings that the first store validates or tests on"
    remedy = "Remove them from that store, or rename them if they are different recordings."
    if generated:
        remedy = "Train the generator on the training recordings of this run alone."
    raise StoreError(f"{' '.join(problem.split())}: {shorten(sorted(both))}", path=store.root, remedy=remedy)


def _open_extra(text: str, task: Task) -> Extra:
    path, _, fraction = text.rpartition("=")
    try:
        number = float(fraction) if path else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        expected = "STORE=FRACTION, such as ravdess=0.3; only the first store has no fraction"
        raise StoreError("a store after the first has no fraction", found=text, expected=expected)
    return Extra(open_store(Path(path), task), number)
