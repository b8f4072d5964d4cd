"""Folds: no recording and no subject is on both sides, every recording is held out once, classes are spread."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from abaw_expr.data.store.folds import OTHER, assign_folds, group_of, split_for_training
from abaw_expr.data.store.mixture import mix
from abaw_expr.data.store.store import Extra, Frames, Store, StoredVideo
from abaw_expr.errors import StoreError
from abaw_expr.settings import DataSettings
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task

LABELS = {"expr": (0, 7, ()), "va": (-1, 1, (2,)), "au": (0, 1, (12,))}


def video(
    name: str, label: np.ndarray, split: str = "train", subject: str | None = None, task: Task = EXPR
) -> StoredVideo:
    made = StoredVideo(name, split, Path(), None, None, task=task, subject=subject)
    none = np.zeros(len(label), np.int64)
    vars(made).update(frames=Frames(none.astype(float), label, none, none.astype(np.int32)))
    return made


def labels_of(task: Task, rng: np.random.Generator, frames: int) -> np.ndarray:
    low, high, fields = LABELS[task.name]
    if task is VA:
        return rng.uniform(low, high, (frames, *fields)).astype(np.float32)
    found: np.ndarray = rng.integers(low, high + 1, (frames, *fields)).astype(np.int8)
    return np.full_like(found, -1) if rng.random() < 0.2 else found


@st.composite
def releases(draw: st.DrawFn) -> tuple[Store, int, str]:
    """A store with `_left` and `_right` and with subjects, the number of folds, and what is trained on."""
    task = draw(st.sampled_from([EXPR, VA, AU]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    videos = []
    for number in range(draw(st.integers(6, 16))):
        split = draw(st.sampled_from(["train", "train", "train", "val", "test"]))
        subject = draw(st.sampled_from([None, None, "a", "b", "c"]))
        for person in draw(st.sampled_from([("",), ("_left", "_right")])):
            label = labels_of(task, rng, int(rng.integers(1, 40)))
            videos.append(video(f"{number}{person}", label, split, subject, task))
    return Store(Path(), "digest", tuple(videos)), draw(st.integers(2, 5)), draw(st.sampled_from(["train", "both"]))


@given(releases())
@examples(deadline=None)
def test_nothing_is_on_both_sides_and_every_recording_is_held_out_once(case: tuple[Store, int, str]) -> None:
    store, folds, train_on = case
    pool = [one for one in store.videos if one.split in (("train", "val") if train_on == "both" else ("train",))]
    if len({group_of(one) for one in pool}) < folds:
        with pytest.raises(
            StoreError, match=f"has too few recordings or subjects; found .*; expected at least {folds}"
        ):
            split_for_training(store, DataSettings(train_on=train_on, folds=folds))
        return
    held_out: Counter[str] = Counter()
    for fold in range(folds):
        found = split_for_training(store, DataSettings(train_on=train_on, folds=folds, fold=fold))
        assert found.digest == store.digest
        sides = {
            split: [one for one in found.videos if one.split == split] for split in ("train", "val", "test", OTHER)
        }
        assert sides["train"]
        assert sides["val"]
        assert not {recording_of(one.name) for one in sides["train"]} & {recording_of(one.name) for one in sides["val"]}
        assert not {one.subject for one in sides["train"]} & {one.subject for one in sides["val"]} - {None}
        assert {one.name for one in sides["train"] + sides["val"]} == {one.name for one in pool}
        assert {one.name for one in sides["test"]} == {one.name for one in store.videos if one.split == "test"}
        held_out.update(one.name for one in sides["val"])
    assert held_out == Counter(one.name for one in pool)


def test_classes_are_spread_over_the_folds() -> None:
    videos = [video(f"{number}", np.full(50, number % 4, np.int8)) for number in range(40)]
    fold = assign_folds(Store(Path(), "", tuple(videos)), videos, 5)
    assert Counter(fold) == dict.fromkeys(range(5), 8)
    for number in range(5):
        mine = Counter(int(one.frames.label[0]) for one, where in zip(videos, fold, strict=True) if where == number)
        assert mine == dict.fromkeys(range(4), 2)


def test_folds_are_always_the_same() -> None:
    videos = [video(f"{number}", np.arange(8, dtype=np.int8)) for number in range(12)]
    store = Store(Path(), "", tuple(videos))
    assert assign_folds(store, videos, 3) == assign_folds(store, videos, 3)


def test_by_default_the_splits_are_the_challenges() -> None:
    store = Store(Path(), "", (video("a", np.zeros(3, np.int8)), video("b", np.zeros(3, np.int8), "val")))
    assert split_for_training(store, DataSettings()) is store


def test_train_and_validation_together_validate_on_what_they_train_on() -> None:
    store = Store(Path(), "", tuple(video(split, np.zeros(3, np.int8), split) for split in ("train", "val", "test")))
    found = split_for_training(store, DataSettings(train_on="both"))
    assert [one.name for one in found.split("train")] == ["train", "val"]
    assert [one.name for one in found.split("val")] == ["val"]
    assert [one.name for one in found.split("test")] == ["test"]


def test_another_store_must_not_train_on_the_fold_that_is_held_out() -> None:
    labels = np.arange(8, dtype=np.int8)
    main = Store(Path("main"), "main", tuple(video(str(number), labels) for number in range(4)))
    other = Store(Path("other"), "other", (video("2_left", labels),))
    mixed = mix(replace(main, videos=(*main.videos, video("v", labels, "val"))), [Extra(other, 0.5)])
    held_out = [split_of(mixed, fold) for fold in range(2)]
    assert sorted(held_out) == ["fits", "would train on 1 recordings that the first store validates or tests on: 2"]


def split_of(store: Store, fold: int) -> str:
    try:
        split_for_training(store, DataSettings(folds=2, fold=fold))
    except StoreError as error:
        return error.problem
    return "fits"
