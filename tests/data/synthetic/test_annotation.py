"""The synthetic corpus's valence, arousal and action units: their files, gaps, rates, and what they follow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from abaw_expr.data.release.reader import read_annotation_folder, read_release
from abaw_expr.data.synthetic.annotation import (
    ACTION_UNITS,
    VALENCE_AROUSAL,
    action_units,
    label_lines,
    unannotated,
    unannotated_units,
    valence_arousal,
)
from abaw_expr.data.synthetic.corpus import TEMPLATES, CorpusPlan, label_folder, write_release
from abaw_expr.data.synthetic.drawing import CLASS_LOOKS, draw_video
from abaw_expr.data.synthetic.speech import MANNERS, synthesise_speech
from abaw_expr.tasks.metric_values import ccc, moments
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task
from submissions.template import read_template

SPLITS = ("train", "val", "test")
DECK = (0, 0, 1, 2, 3, 4, 5, 6, 7, 7)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "release"
    write_release(root, CorpusPlan(train_videos=2, val_videos=2, test_videos=1, seconds=4), seed=0)
    return root


@pytest.fixture(scope="module")
def observed() -> tuple[np.ndarray, np.ndarray]:
    """The looks [V, T, 7] and manners [V, T, 6] of 60 people at one frame a segment, their classes from the deck."""
    rng = np.random.default_rng(0)
    looks, manners = [], []
    for _ in range(60):
        classes = rng.permutation(DECK).tolist()
        looks.append(draw_video(classes, np.arange(len(classes)), 1.0, rng).looks)
        manners.append(synthesise_speech(classes, [0.01] * len(classes), rng).manners)
    return np.stack(looks), np.stack(manners)


def labels_of(root: Path, task: Task) -> dict[str, np.ndarray]:
    """The labels of every video of every split."""
    return {
        video: labels
        for split in SPLITS
        for video, labels in read_annotation_folder(root / label_folder(task, split), task).items()
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_has_the_same_videos_and_lines(tiny: Path, task: Task) -> None:
    for split in SPLITS:
        expr = read_annotation_folder(tiny / label_folder(EXPR, split), EXPR)
        labels = read_annotation_folder(tiny / label_folder(task, split), task)
        assert {video: len(rows) for video, rows in labels.items()} == {
            video: len(rows) for video, rows in expr.items()
        }


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_release_is_read_for_every_task(tiny: Path, task: Task) -> None:
    release = read_release(tiny)
    assert release.problems == ()
    assert release.not_annotated == ()
    videos = [video for recording in release.recordings for video in recording.videos]
    splits = sorted(video.annotations[task].split for video in videos)
    assert splits == ["test", "train", "train", "train", "val", "val"]
    template = read_template(tiny / TEMPLATES[task.name], task)
    hidden = read_annotation_folder(tiny / label_folder(task, "test"), task)
    assert {video: len(frames) for video, frames in template.frames.items()} == {
        video: len(labels) for video, labels in hidden.items()
    }


def test_hidden_labels_lie_apart() -> None:
    folders = [label_folder(task, "test") for task in TASKS.values()]
    assert folders == ["hidden_test_labels", "hidden_test_labels_va", "hidden_test_labels_au"]
    assert not set(folders) & {name for task in TASKS.values() for name in task.annotation_folders}


def test_valence_and_arousal_are_hidden_where_the_class_is(tiny: Path) -> None:
    classes = labels_of(tiny, EXPR)
    for video, values in labels_of(tiny, VA).items():
        hidden = classes[video] == EXPR.ignore_value
        assert (values[hidden] == VA.ignore_value).all()
        assert (np.abs(values[~hidden]) <= 1).all()


def test_values_are_written_with_at_most_three_decimals(tiny: Path) -> None:
    lines = [
        line for path in tiny.glob(f"{label_folder(VA, 'train')}/*.txt") for line in path.read_text().splitlines()[1:]
    ]
    assert lines
    assert all(len(number.partition(".")[2]) <= 3 for line in lines for number in line.split(","))
    assert "-5,-5" in lines
    assert not {"-0", "nan"} & {number for line in lines for number in line.split(",")}


def test_units_are_annotated_in_part_in_every_second_recording(tiny: Path) -> None:
    classes = labels_of(tiny, EXPR)
    partly = {}
    for video, units in labels_of(tiny, AU).items():
        assert set(np.unique(units)) == {-1, 0, 1}
        hidden = units == AU.ignore_value
        assert (hidden.all(axis=1) == (classes[video] == EXPR.ignore_value)).all()
        partly[video] = hidden.any(axis=1) & ~hidden.all(axis=1)
        assert not partly[video].any() or hidden[partly[video]].sum(axis=1).tolist() == [4] * partly[video].sum()
    assert {video.split("-")[0] for video, frames in partly.items() if frames.any()} == {"2", "4"}


@pytest.mark.parametrize("frames", [1, 2, 10, 437])
def test_gaps_are_stretches_of_their_lengths(frames: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        hidden = unannotated(frames, rng)
        assert hidden.sum() == max(1, round(0.1 * frames))
        assert np.count_nonzero(np.diff(np.pad(hidden.astype(int), 1))) == 2
        units = unannotated_units(hidden, rng)
        assert units[hidden].all()
        partly = units[~hidden].any(axis=1).sum()
        assert partly == min(max(1, round(0.05 * frames)), frames - hidden.sum())


@pytest.mark.parametrize(("extra", "expected"), [(-1, [0, -1]), (0, [0, -1, 2]), (2, [0, -1, 2, 2, 2])])
def test_extra_lines_repeat_the_last(extra: int, expected: list[int]) -> None:
    values, hidden = np.arange(3), np.array([False, True, False])
    assert label_lines(values, hidden, EXPR, extra).tolist() == expected
    twice = label_lines(np.stack([values, values], axis=1), np.stack([hidden, ~hidden], axis=1), AU, extra)
    assert twice[:, 0].tolist() == expected
    assert twice[:2].tolist() == [[0, -1], [-1, 1]]
    assert values.tolist() == [0, 1, 2]


def test_tables_have_a_row_for_every_field() -> None:
    assert tuple(VALENCE_AROUSAL) == VA.columns
    assert tuple(ACTION_UNITS) == AU.columns


def test_annotations_of_the_classes() -> None:
    """Without spread: Happiness is the most pleasant, Anger, Fear and Surprise are aroused, Sadness is calm."""
    valence, arousal = valence_arousal(CLASS_LOOKS, MANNERS).T
    assert valence.argmax() == EXPR.columns.index("Happiness")
    assert (valence[[1, 2, 3, 5]] < -0.2).all()
    assert (arousal[[1, 3, 6]] > 0.3).all()
    assert arousal.argmin() == EXPR.columns.index("Sadness")
    units = dict(zip(AU.columns, action_units(CLASS_LOOKS, MANNERS).T, strict=True))
    assert units["AU1"].nonzero()[0].tolist() == [3, 5, 6]
    assert units["AU12"].nonzero()[0].tolist() == [4, 7]
    assert units["AU26"].nonzero()[0].tolist() == [1, 4, 6]


def test_values_use_their_range_in_every_video(observed: tuple[np.ndarray, np.ndarray]) -> None:
    values = np.stack([valence_arousal(*video) for video in zip(*observed, strict=True)])
    assert (values.std(axis=1) > 0.25).all()
    assert (np.quantile(values, 0.05, axis=(0, 1)) < -0.7).all()
    assert (np.quantile(values, 0.95, axis=(0, 1)) > 0.7).all()
    assert (np.abs(values) == 1).mean() < 0.05


def test_every_unit_is_active_in_a_sixth_to_half_of_the_frames(observed: tuple[np.ndarray, np.ndarray]) -> None:
    units = np.stack([action_units(*video) for video in zip(*observed, strict=True)])
    rates = units.mean(axis=(0, 1))
    assert ((rates > 0.15) & (rates < 0.6)).all()
    assert ((units.min(axis=1) < units.max(axis=1)).mean(axis=0) > 0.8).all()


def scores(predicted: np.ndarray, truth: np.ndarray) -> Sequence[float]:
    """CCC of valence and of arousal."""
    return ccc(moments(truth, np.clip(predicted, -1, 1), VA)).tolist()


def test_valence_is_seen_and_arousal_is_heard(observed: tuple[np.ndarray, np.ndarray]) -> None:
    """Ridge regression from one modality gives one field well and the other in part, their average gives both."""
    frames = [values.reshape(-1, values.shape[-1]) for values in observed]
    truth, half = valence_arousal(*frames), len(frames[0]) // 2
    seen, heard = (Ridge(1.0).fit(x[:half], truth[:half]).predict(x[half:]) for x in frames)
    valence, arousal = zip(*(scores(p, truth[half:]) for p in (seen, heard, (seen + heard) / 2)), strict=True)
    assert valence[0] > 0.95
    assert arousal[1] > 0.9
    assert 0.3 < arousal[0] < 0.9
    assert 0.3 < valence[1] < 0.9
    means = np.mean([valence, arousal], axis=0)
    assert means[2] > max(means[:2]) + 0.02
