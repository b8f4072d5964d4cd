"""Which recordings a run trains on and is validated on, where that is not as the challenge splits them.

Shapes: V videos, n annotated frames of all of them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from abaw_expr.data.store.mixture import check_extras
from abaw_expr.data.store.store import Store, StoredVideo
from abaw_expr.errors import StoreError
from abaw_expr.settings import DataSettings
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import is_annotated

HELD_OUT = "held-out"
"""The split of the fold that a run did not train on."""
OTHER = "other"
"""The split of videos that a run of a fold neither trains on nor is validated on."""
_POOLS = {"train": ("train",), "both": ("train", "val")}


def split_for_training(store: Store, data: DataSettings) -> Store:
    """The store with its splits as these settings have them; its digest stays.

    Of folds, the one that is held out is the validation split, and the others are trained on. Where train and
    validation are trained on together without folds, the validation videos are in both splits. Raises StoreError where
    there are fewer groups of recordings than folds, and where a store that is mixed in has recordings of the held-out
    fold.
    """
    pool = _POOLS[data.train_on]
    if not data.folds:
        copies = [replace(video, split="train") for video in store.videos if video.split in pool[1:]]
        return replace(store, videos=(*store.videos, *copies)) if copies else store
    videos = [video for video in store.videos if video.split in pool]
    fold_of = dict(zip((video.name for video in videos), assign_folds(store, videos, data.folds), strict=True))

    def split(video: StoredVideo) -> str:
        if video.name in fold_of:
            return "val" if fold_of[video.name] == data.fold else "train"
        return "test" if video.split == "test" else OTHER

    split_videos = tuple(replace(video, split=split(video)) for video in store.videos)
    split_store = replace(store, videos=split_videos)
    check_extras(split_store, store.extras)
    return split_store


def assign_folds(store: Store, videos: Sequence[StoredVideo], folds: int) -> list[int]:
    """The fold of each video, counted from 0, [V]; always the same for the same videos.

    Recordings stay whole, and so do people where the store knows them: a subject's recordings are in one fold. A fold
    has about the same fraction as all of each stratum (class, or bin of values) of annotated frames. Raises StoreError
    where there are fewer groups than folds.
    """
    names, member = np.unique([group_of(video) for video in videos], return_inverse=True)
    if len(names) < folds:
        expected = f"at least {folds}, one for each fold"
        raise StoreError("has too few recordings or subjects", path=store.root, found=len(names), expected=expected)
    stratum, group = _strata(videos, member.tolist())
    # It takes a second to import, and few runs have folds.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    fold = np.zeros(len(names), int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # a class of few frames is no fault
        for number, (_, held_out) in enumerate(splitter.split(stratum, stratum, group)):
            fold[group[held_out]] = number
    return [int(number) for number in _none_empty(fold, group, folds)[member]]


def group_of(video: StoredVideo) -> str:
    """What is never divided: the subject of a recording where the store knows it, else the recording."""
    return video.subject or recording_of(video.name)


def _strata(videos: Sequence[StoredVideo], groups: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Stratum and group of every annotated frame, [n] each, and one more frame of stratum 0 for each video."""
    task = videos[0].task
    strata, members = list[np.ndarray](), list[np.ndarray]()
    for video, group in zip(videos, groups, strict=True):
        label = video.frames.label
        known = np.any(is_annotated(label, task).reshape(len(label), -1), axis=1)
        own = np.concatenate([[0], 1 + metric_of(task).strata(label[known])])
        strata.append(own)
        members.append(np.full(len(own), group))
    return np.concatenate(strata), np.concatenate(members)


def _none_empty(fold: np.ndarray, group: np.ndarray, folds: int) -> np.ndarray:
    """The folds of groups such that each fold has one: an empty fold takes the smallest group of the fullest."""
    sizes = np.bincount(group, minlength=len(fold))
    for empty in set(range(folds)) - set(fold.tolist()):
        fullest = np.bincount(fold, minlength=folds).argmax()
        own = np.flatnonzero(fold == fullest)
        fold[own[sizes[own].argmin()]] = empty
    return fold
