"""One store of several challenges: media once, labels and splits by task, and an identity for each."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.commands.main import main
from abaw_expr.data.labels import Labels, no_labels
from abaw_expr.data.release.reader import read_annotation, read_release
from abaw_expr.data.store.mixture import mix
from abaw_expr.data.store.store import MANIFEST, Extra, StoredVideo, open_store, stored_videos
from abaw_expr.data.store.tables import read_labels, write_labels
from abaw_expr.data.store.verify import verify
from abaw_expr.errors import ReleaseError, StoreError
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task
from tests.helpers.annotating import add_challenge, leave_challenges, random_labels, write_annotation, write_test_list
from tests.helpers.tiny import add, add_validation, annotate, contents, kinds, run, video_file

LINES = 61
"""Of every annotation of valence, arousal and units that the small release gets: more than its videos have frames."""


class Corpus(NamedTuple):
    """The small release with all three challenges, its store, and what was written."""

    release: Path
    store: Path
    alone: Path
    """The store of expressions alone."""
    names: list[str]
    splits: dict[Task, dict[str, str]]
    labels: dict[Task, dict[str, Labels]]


@pytest.fixture(scope="module")
def three(release: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The second training video of EXPR validates in VA; one of its validation videos is a test video in AU."""
    root = tmp_path_factory.mktemp("challenges")
    shutil.copytree(release, root / "release")
    leave_challenges(root / "release", EXPR)
    run(root / "release", root / "alone")
    expr = {video.name: video.split for video in open_store(store, EXPR).videos}
    train, val, test = ([name for name in expr if expr[name] == split] for split in ("train", "val", "test"))
    va = {train[0]: "train", train[1]: "val", val[0]: "train", test[0]: "test"}
    au = {train[0]: "train", train[1]: "val", train[2]: "train", val[0]: "test", val[1]: "train", test[0]: "val"}
    labels = {task: add_challenge(root / "release", task, of, LINES) for task, of in ((VA, va), (AU, au))}
    run(root / "release", root / "store")
    return Corpus(root / "release", root / "store", root / "alone", list(expr), {EXPR: expr, VA: va, AU: au}, labels)


def by_name(store: Path, task: Task) -> dict[str, StoredVideo]:
    return {video.name: video for video in open_store(store, task).videos}


def size(store: Path) -> int:
    """Bytes of all files of a store."""
    return sum(len(data) for data in contents(store).values())


def test_the_labels_of_two_more_challenges_add_little(three: Corpus) -> None:
    """2,301,639 bytes instead of 2,282,696: 0.8 % more."""
    assert size(three.alone) < size(three.store) <= 1.02 * size(three.alone)
    media = {name: data for name, data in contents(three.alone).items() if name.endswith((".tar", ".npy"))}
    kept = contents(three.store)
    assert {name: kept[name] for name in media} == media
    assert sum(name.endswith(".tar") for name in kept) == len(three.names)


def test_a_video_has_the_split_of_each_challenge(three: Corpus) -> None:
    opened = {
        task: {video.name: video.split for video in open_store(three.store, task).videos} for task in TASKS.values()
    }
    assert opened == three.splits
    found = [(opened[EXPR][name], opened[VA].get(name), opened[AU].get(name)) for name in three.names]
    assert found.count(("train", "val", "val")) == 1
    assert found.count(("val", "train", "test")) == 1


@pytest.mark.parametrize("task", [VA, AU], ids=lambda task: task.name)
def test_labels_come_back_as_they_were_written(task: Task, three: Corpus) -> None:
    for name, video in by_name(three.store, task).items():
        label, frames = video.frames.label, len(by_name(three.store, EXPR)[name].frames)
        assert label.dtype == (np.float32 if task == VA else np.int8)
        assert label.shape == (len(video.frames), len(task.fields))
        written = three.labels[task].get(name, no_labels(0, task))
        assert label[: len(written)].tolist() == written.tolist()
        assert label[len(written) :].tolist() == no_labels(len(label) - len(written), task).tolist()
        assert len(label) >= max(len(written), frames - 2)
        assert np.all(np.diff(video.frames.time) > 0)


def test_labels_open_with_an_ordinary_tool(three: Corpus) -> None:
    for task, names in ((EXPR, ["label"]), (VA, ["valence", "arousal"]), (AU, list(AU.columns))):
        for name, video in by_name(three.store, task).items():
            path = video.folder / f"{name}.{task.name}.parquet"
            assert path.exists() == (video.split != "test")
            if path.exists():
                table = pd.read_parquet(path)
                assert table.columns.tolist() == names
                assert table.to_numpy().tolist() == video.frames.label.reshape(len(table), -1).tolist()


def test_another_challenge_changes_nothing_for_a_task(three: Corpus) -> None:
    alone, together = open_store(three.alone, EXPR), open_store(three.store, EXPR)
    assert together.digest == alone.digest
    assert [video.name for video in together.videos] == [video.name for video in alone.videos]
    for first, second in zip(alone.videos, together.videos, strict=True):
        for column in ("time", "label", "offset", "size"):
            assert getattr(first.frames, column).tolist() == getattr(second.frames, column).tolist()
    manifests = [json.loads((root / MANIFEST).read_bytes()) for root in (three.alone, three.store)]
    assert list(manifests[0]["tasks"]) == ["expr"]
    assert list(manifests[1]["tasks"]) == ["expr", "va", "au"]
    digests = [manifest["digest"] for manifest in manifests] + [t["digest"] for t in manifests[1]["tasks"].values()]
    assert len(set(digests)) == 5


@pytest.mark.slow
def test_annotations_that_come_later_are_added(three: Corpus, release: Path, tmp_path: Path) -> None:
    run(release, tmp_path / "store")
    run(three.release, tmp_path / "store")
    assert contents(tmp_path / "store") == contents(three.store)
    assert verify(three.store, True, 1, lambda done, total: None) == ()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_tasks_digest_is_of_its_labels_and_splits(task: Task, tmp_path: Path) -> None:
    root, splits = tmp_path / "release", {"a": "train", "val": "val"}
    add(root, "a")
    add_validation(root)
    for other in (VA, AU):
        add_challenge(root, other, splits, 10)
    run(root, tmp_path / "store")
    before = {each: open_store(tmp_path / "store", each).digest for each in TASKS.values()}
    write_annotation(root, task, "train", "a", random_labels(task, 10, np.random.default_rng(9)))
    run(root, tmp_path / "store")
    after = {each: open_store(tmp_path / "store", each).digest for each in TASKS.values()}
    assert {each for each in TASKS.values() if before[each] != after[each]} == {task}
    video_file(root, "c")
    write_test_list(root, task, "c")
    run(root, tmp_path / "store")
    listed = {each: open_store(tmp_path / "store", each).digest for each in TASKS.values()}
    assert {each for each in TASKS.values() if listed[each] != after[each]} == {task}


def test_the_media_of_a_video_count_for_the_tasks_that_name_it(tmp_path: Path) -> None:
    root = tmp_path / "release"
    add(root, "a")
    add_validation(root)
    add_challenge(root, VA, {"b": "train", "val": "val"}, 10)
    video_file(root, "b")
    run(root, tmp_path / "store")
    assert list(by_name(tmp_path / "store", EXPR)) == ["a", "val"]
    assert list(by_name(tmp_path / "store", VA)) == ["b", "val"]
    before = {each: open_store(tmp_path / "store", each).digest for each in (EXPR, VA)}
    video_file(root, "b", frames=12)
    run(root, tmp_path / "store")
    assert open_store(tmp_path / "store", EXPR).digest == before[EXPR]
    assert open_store(tmp_path / "store", VA).digest != before[VA]


def test_a_release_of_one_challenge_makes_a_store_of_that_one(tmp_path: Path) -> None:
    splits = {"a": "train", "b": "val"}
    add_challenge(tmp_path / "release", AU, splits, 10)
    for name in splits:
        video_file(tmp_path / "release", name)
    write_test_list(tmp_path / "release", VA, "a")  # of a challenge without annotations: not read
    prepared = run(tmp_path / "release", tmp_path / "store")
    assert prepared.videos == {"au": {"train": 1, "val": 1}}
    assert [video.frames.label.shape for video in open_store(tmp_path / "store", AU).videos] == [(10, 12)] * 2
    message = r"no annotations of EXPR; found 'annotations of AU'\. Add .*EXPR_Recognition_Challenge\) to the release"
    with pytest.raises(StoreError, match=message):
        open_store(tmp_path / "store", EXPR)


def test_a_video_of_two_splits_of_one_challenge_is_refused(tmp_path: Path) -> None:
    add_challenge(tmp_path, VA, {"a": "train", "b": "val"}, 3)
    write_test_list(tmp_path, VA, "b")
    with pytest.raises(ReleaseError, match=r"b is named as a val video and as a test video of VA.*Remove it from one"):
        read_release(tmp_path)


def test_two_folders_of_one_challenge_are_refused(tmp_path: Path) -> None:
    add_challenge(tmp_path, AU, {"a": "train", "b": "val"}, 3)
    annotate(tmp_path, "a", [",".join(["0"] * 12)], "8th_ABAW_Annotations/AU_Detection_Challenge/Train_Set", AU)
    with pytest.raises(ReleaseError, match=r"more than one annotation folder.*6th_ABAW.*8th_ABAW.*one a challenge"):
        read_release(tmp_path)


def test_lines_are_compared_with_frames_for_each_challenge(tmp_path: Path) -> None:
    root = tmp_path / "release"
    add(root, "a", lines=15)
    add_validation(root)
    add_challenge(root, VA, {"a": "train", "val": "val"}, 5)
    prepared = run(root, tmp_path / "store")
    assert kinds(prepared) == {"a": ["count mismatch", "count mismatch"]}
    assert [problem.detail for problem in prepared.problems] == [
        "15 label lines of EXPR, 10 frames in the video, crops up to frame 2",
        "5 label lines of VA, 10 frames in the video, crops up to frame 2",
    ]
    lengths = {task: len(by_name(tmp_path / "store", task)["a"].frames) for task in (EXPR, VA)}
    assert lengths == {EXPR: 15, VA: 10}


def test_a_store_of_an_older_format_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether it was complete, or its `prepare` was stopped before it wrote the manifest."""
    root, store = tmp_path / "release", tmp_path / "store"
    add(root, "a")
    add_validation(root)
    run(root, store)
    for path in store.rglob("*.json"):
        path.write_text(path.read_text().replace('"format": 3', '"format": 2'))
    for complete in (True, False):
        if not complete:
            (store / MANIFEST).unlink()
        before = contents(store)
        assert main(["prepare", "--release", str(root), "--store", str(store)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "the store has another format; found 2; expected 3." in said
        assert "Run `prepare` into a new folder, then delete the old one." in said
        assert contents(store) == before


def test_a_video_that_a_task_does_not_name_has_no_labels(three: Corpus) -> None:
    name = next(name for name in three.names if name not in three.splits[VA])
    folder = by_name(three.store, EXPR)[name].folder
    video = next(video for video in stored_videos(folder, VA) if video.name == name)
    assert video.split == "test"
    assert (video.frames.label == VA.ignore_value).all()
    assert video.frames.label.shape == (len(video.frames), 2)


def test_the_command_counts_videos_by_challenge_and_split(
    three: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--release", str(three.release), "--store", str(three.store), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    for task, splits in three.splits.items():
        for split in ("train", "val", "test"):
            count = [*splits.values()].count(split)
            (line,) = (line for line in said.splitlines() if f"{task.name.upper()} {split} videos" in line)
            assert line.split()[-1].strip("│") == str(count) or f" {count} " in line


def held_out(three: Corpus, task: Task) -> str:
    """A video that trains for expressions and validates for another task."""
    return next(
        name for name, split in three.splits[task].items() if (split, three.splits[EXPR][name]) == ("val", "train")
    )


def test_what_one_task_holds_out_another_may_train_on(three: Corpus) -> None:
    """The other store trains on a video that the first one holds out for VA, and trains on for EXPR."""
    name = held_out(three, VA)
    for task, refused in ((EXPR, False), (VA, True)):
        main_store = open_store(three.store, task)
        video = replace(main_store.videos[0], name=name, split="train")
        extra = Extra(replace(main_store, digest="other", videos=(video,)), 0.5)
        if refused:
            with pytest.raises(StoreError, match="would train on 1 recordings that the first store validates"):
                mix(main_store, [extra])
        else:
            assert mix(main_store, [extra]).extras


@given(st.sampled_from([*TASKS.values()]), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_labels_round_trip(
    tmp_path_factory: pytest.TempPathFactory, task: Task, count: int, ignored: float, seed: int
) -> None:
    """Through an annotation file and through the store's table, annotated in part or not at all."""
    root = tmp_path_factory.getbasetemp()
    labels = random_labels(task, count, np.random.default_rng(seed), ignored)
    path = root / "labels.parquet"
    write_labels(path, read_annotation(write_annotation(root, task, "train", "a", labels), task), task)
    found = read_labels(path, task)
    assert found.tolist() == labels.tolist()
    assert (found.dtype, found.shape) == (labels.dtype, labels.shape)


CHALLENGES = st.dictionaries(
    st.sampled_from([*TASKS.values()]),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["train", "val", "test"])),
    min_size=1,
)


@pytest.mark.slow
@given(CHALLENGES)
def test_every_combination_of_splits_is_read(
    tmp_path_factory: pytest.TempPathFactory, challenges: Mapping[Task, Mapping[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("release")
    whole = {task: {"x": "train", "y": "val", **splits} for task, splits in challenges.items()}
    for task, splits in whole.items():
        add_challenge(root, task, splits, 2)
    release = read_release(root)
    found: dict[Task, dict[str, str]] = {task: {} for task in release.tasks}
    for recording in release.recordings:
        for video in recording.videos:
            for task, annotation in video.annotations.items():
                found[task][video.name] = annotation.split
    assert found == whole
    assert set(release.without_test_list) == {t for t, splits in whole.items() if "test" not in splits.values()}
