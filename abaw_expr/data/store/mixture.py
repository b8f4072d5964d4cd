"""Several stores that one run learns from: the first as it is, of each other one a share of an epoch's samples."""

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
    """Opens stores named as `main ravdess=0.3 ck=0.1`.

    Raises StoreError where one is no complete store of this task, a share is none, and as `mix` does.
    """
    first, *others = texts
    return mix(open_store(Path(first), task), [_extra(text, task) for text in others])


def mix(main: Store, extras: Sequence[Extra]) -> Store:
    """The main store with others beside it, whose identity is that of all and of their shares.

    Raises StoreError where shares leave nothing to the first store, where a store comes twice, and where one would
    train on recordings that the first validates or tests on.
    """
    if not extras:
        return main
    shares = [extra.share for extra in extras]
    if min(shares) <= 0 or sum(shares) >= 1:
        found = ", ".join(f"{share:g}" for share in shares)
        raise StoreError("the stores' shares cannot be used", found=found, expected="shares above 0, below 1 in all")
    held_out = {recording_of(video.name) for video in main.videos if video.split != "train"}
    seen = {main.digest}
    for extra in extras:
        if extra.store.digest in seen:
            raise StoreError("is named twice", path=extra.store.root, remedy="Name each store once.")
        seen.add(extra.store.digest)
        names = {recording_of(video.name) for video in extra.store.videos if video.split == "train"}
        if both := sorted(names & held_out):
            problem = f"would train on {len(both)} recordings that the first store holds out: {shorten(both)}"
            remedy = "Leave them out of that store, or give them other names if they are others."
            raise StoreError(problem, path=extra.store.root, remedy=remedy)
    identity = digest([main.digest, [[extra.store.digest, extra.share] for extra in extras]])
    return replace(main, digest=identity, extras=tuple(extras))


def _extra(text: str, task: Task) -> Extra:
    path, _, share = text.rpartition("=")
    try:
        number = float(share) if path else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        expected = "STORE=SHARE, such as ravdess=0.3; only the first store has no share"
        raise StoreError("a store after the first has no share", found=text, expected=expected)
    return Extra(open_store(Path(path), task), number)
