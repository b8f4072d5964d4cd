"""What holds for the stores of every kind of data set, and what is special to each kind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.datasets.clips import WORDS, ClipRow, release_of, split_subjects
from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.data.datasets.registry import CLIPS, read_dataset
from abaw_expr.data.release.reader import Recording
from abaw_expr.data.store.store import Store, StoredVideo, open_store
from abaw_expr.errors import ReleaseError, SettingsError, UserError
from abaw_expr.settings import DataSettings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from tests.helpers.fitting import AUDIO, SETTINGS, fit, metrics
from tests.helpers.layouts import LAYOUTS, Layout, paint, prepare_kind, record, sequence
from tests.helpers.tiny import contents, kinds, video_file

each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """A data set of every kind, and its store."""
    found: dict[str, tuple[Path, Path]] = {}
    for layout in LAYOUTS:
        root = tmp_path_factory.mktemp("datasets")
        layout.write(root / "set")
        layout.prepare(root / "set", root / "store")
        found[layout.name] = (root / "set", root / "store")
    return found


def opened(stores: dict[str, tuple[Path, Path]], layout: Layout) -> Store:
    return open_store(stores[layout.name][1], EXPR)


def video_of(store: Path, name: str) -> StoredVideo:
    return next(video for video in open_store(store, EXPR).videos if video.name == name)


# Every kind


def test_every_kind_is_in_the_suite() -> None:
    assert [*dict.fromkeys(layout.kind for layout in LAYOUTS)] == ["aff-wild2", *CLIPS]


@each_layout
def test_every_clip_is_a_recording_with_its_labels(layout: Layout, stores: dict[str, tuple[Path, Path]]) -> None:
    store = opened(stores, layout)
    assert {video.name: video.frames.label.tolist() for video in store.videos} == layout.labels
    for video in store.videos:
        assert video.folder.name == video.name
        assert video.frames.time[0] == 0
        assert (np.diff(video.frames.time) > 0).all()


@each_layout
def test_no_subject_is_in_two_splits(layout: Layout, stores: dict[str, tuple[Path, Path]]) -> None:
    splits: dict[str, set[str]] = {}
    for video in opened(stores, layout).videos:
        splits.setdefault(layout.subjects[video.name], set()).add(video.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) - {"test"} == {"train", "val"}
    assert layout.splits.items() <= {subject: split for subject, (split,) in splits.items()}.items()


@each_layout
def test_the_same_files_make_the_same_store(
    layout: Layout, stores: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    root, store = stores[layout.name]
    layout.write(tmp_path / "elsewhere")
    layout.prepare(tmp_path / "elsewhere", tmp_path / "store")
    assert contents(tmp_path / "store") == contents(store)
    again = layout.prepare(root, store)
    assert (again.made, again.kept) == (0, len(layout.labels))


@each_layout
def test_an_unreadable_clip_is_named_and_left_out(
    layout: Layout, stores: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    layout.write(tmp_path)
    clip = tmp_path / layout.clip
    for path in clip.iterdir() if clip.is_dir() else [clip]:
        path.unlink() if clip.is_dir() else path.write_bytes(b"no clip")
    prepared = layout.prepare(tmp_path, tmp_path / "store")
    assert prepared.left_out == (layout.broken,)
    (kind,) = kinds(prepared)[layout.broken]
    assert kind.startswith("unreadable ")
    others = {video.name for video in open_store(tmp_path / "store", EXPR).videos}
    assert others == layout.labels.keys() - {layout.broken}
    for name in others:
        whole = stores[layout.name][1] / "recordings" / name
        assert contents(tmp_path / "store/recordings" / name) == contents(whole)


@each_layout
def test_an_unknown_class_is_named_where_it_stands(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path)
    layout.mislabel(tmp_path)
    with pytest.raises(ReleaseError, match=layout.unknown):
        layout.prepare(tmp_path, tmp_path / "store")


@each_layout
def test_a_place_without_the_data_set_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=f"{tmp_path}/none: (is not a folder|holds 0 folders|cannot be read)"):
        prepare_kind(layout.kind, tmp_path / "none", tmp_path / "store")
    if layout.kind != "clips":
        (tmp_path / "empty").mkdir()
        with pytest.raises(ReleaseError, match=f"{tmp_path}/empty: holds (no|0) "):
            prepare_kind(layout.kind, tmp_path / "empty", tmp_path / "store")


@each_layout
def test_frames_have_what_the_clip_has(layout: Layout, stores: dict[str, tuple[Path, Path]]) -> None:
    store = opened(stores, layout)
    index = FrameIndex(store.videos, EXPR)
    assert len(index) == sum(map(len, layout.labels.values()))
    assert {name for name in ("audio", "visual") if index.has[name].any()} == set(layout.branches)
    assert index.has["waveform"].tolist() == index.has["audio"].tolist()
    for place in np.flatnonzero(index.has["visual"]):
        assert index.videos[index.video[place]].jpeg(int(index.row[place]))


@pytest.mark.slow
@each_layout
def test_a_run_is_trained_on_it(layout: Layout, stores: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    settings = replace(
        AUDIO,
        data=DataSettings(stride=0.1, val_stride=0.1, balance=0.5),
        branches=SETTINGS.only(layout.branches).branches,
    )
    run = fit(opened(stores, layout), tmp_path / "run", settings)
    assert np.isfinite(metrics(run)[["train_loss", "val_loss"]]).all(axis=None)
    weights = load_checkpoint(run.last).network
    assert all(tensor.isfinite().all() for tensor in weights.values())
    labels = {label for v in opened(stores, layout).split("train") for label in v.frames.label.tolist()} - {-1}
    prior = load_checkpoint(run.last).prior
    assert {number for number, fraction in enumerate(prior) if fraction} <= labels, "there is no other class to learn"


# Words and splits


@pytest.mark.parametrize(("word", "name"), [(word, name) for name, words in WORDS.items() for word in words])
def test_a_word_means_its_class_in_any_case(word: str, name: str, tmp_path: Path) -> None:
    (recording,) = release_of(tmp_path, [ClipRow(tmp_path / "a.wav", word.upper(), "s")], ClipOptions()).recordings
    assert [span.label for span in recording.videos[0].annotations[EXPR].spans] == [EXPR.columns.index(name)]


def labelled(tmp_path: Path, text: str, *words: str) -> list[int]:
    """Classes of words with a map of labels."""
    (tmp_path / "labels.yaml").write_text(text)
    rows = [ClipRow(tmp_path / f"{i:02d}.wav", word, "s") for i, word in enumerate(words)]
    release = release_of(tmp_path, rows, ClipOptions(labels=tmp_path / "labels.yaml"))
    return [recording.videos[0].annotations[EXPR].spans[0].label for recording in release.recordings]


def test_words_that_yaml_takes_for_something_else_are_words(tmp_path: Path) -> None:
    text = "no: Disgust\n0012: Fear\n1e5: Other\ntrue: Anger\n2024-01-01: Sadness\nNA: null\nnan: ~\n"
    words = ["no", "0012", "1e5", "True", "2024-01-01", "na", "NaN"]
    assert labelled(tmp_path, text, *words) == [2, 3, 7, 1, 5, -1, -1]


def test_a_map_of_labels_adds_and_overrides(tmp_path: Path) -> None:
    text = "Contempt: disgust\nbored: Other\ncalm:\n"
    assert labelled(tmp_path, text, "contempt", "Bored", "calm", "happy") == [2, 7, -1, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "calm: Quiet",
            r"labels\.yaml: maps calm to an unknown class; found 'Quiet'; expected one of Neutral, Anger, ",
        ),
        ("calm", r"labels\.yaml: is not a map of labels; expected a line `word: Class`"),
        ("calm: [", r"labels\.yaml: is not YAML"),
    ],
)
def test_a_map_of_labels_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=message):
        labelled(tmp_path, text, "calm")


SUBJECTS = st.sets(st.text(min_size=1, max_size=4), min_size=1, max_size=20)


@given(SUBJECTS, st.floats(0, 1), st.randoms())
def test_a_fraction_of_the_subjects_validates_whatever_their_order(
    subjects: set[str], fraction: float, random: Random
) -> None:
    rows = [ClipRow(Path(f"{subject}-{take}"), "", subject) for subject in sorted(subjects) for take in range(2)]
    splits = split_subjects(rows, fraction)
    assert sorted(splits.values()).count("val") == round(fraction * len(subjects))
    random.shuffle(rows)
    assert split_subjects(rows, fraction) == splits
    more = split_subjects(rows, min(fraction + 0.2, 1.0))
    assert all(more[subject] == "val" for subject, split in splits.items() if split == "val")


# CSV files of clips


def described(tmp_path: Path, table: str) -> tuple[Recording, ...]:
    (tmp_path / "clips.csv").write_text(table)
    return read_dataset("clips", tmp_path / "clips.csv", ClipOptions()).recordings


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"clips\.csv:1: has a wrong header"),
        (
            "path,subject\n",
            r"clips\.csv:1: has a wrong header; found 'path,subject'; expected path and label, and any of",
        ),
        ("path,label,spilt\n", r"clips\.csv:1: has a wrong header; found 'path,label,spilt'"),
        ("path,label\n", r"clips\.csv: holds no labelled clip"),
        ("path,label,subject\na.mp4,happy\n", r"clips\.csv:2: has a wrong line; found 2; expected 3 cells"),
        ('path,label\n"a.mp4,happy\n', r"clips\.csv:2: is not CSV"),
        ("path,label,split\n,happy,val\n", r"clips\.csv:2: names no file"),
        (
            "path,label,split\na.mp4,happy,dev\n",
            r"clips\.csv:2: has an unknown split; found 'dev'; expected train, val",
        ),
        ("path,label\na.mp4,happy\n", r"clips\.csv:2: names neither subject nor split.*Clips are split by subject"),
        (
            "path,label,subject,split\na.mp4,sad,x,train\n\nb.mp4,sad,x,val\n",
            r"clips\.csv:4: subject x is in val, and in train by clips\.csv:2\. Put all clips of a subject into",
        ),
        (
            "path,label,split\na/x.mp4,sad,val\nb/x.mp4,sad,val\n",
            r"clips\.csv:3: clip x has another file than by clips\.csv:2; .*another name",
        ),
        (
            "path,label,subject\nx.mp4,sad,a\nx.mp4,sad,b\n",
            r"clips\.csv:3: clip x has another subject than by clips\.csv:2",
        ),
        (
            "path,label,split,name\nx.mp4,sad,val,../x\n",
            r"clips\.csv:2: cannot be the name of a file or folder; found '\.\./x'",
        ),
        ("path,label,split,start\nx.mp4,sad,val,soon\n", r"clips\.csv:2: has an unknown time; found 'soon'"),
        ("path,label,split,end\nx.mp4,sad,val,-1\n", r"clips\.csv:2: has an unknown time; found '-1'"),
        ("path,label,split,start,end\nx.mp4,sad,val,2,1\n", r"clips\.csv:2: ends before it starts; found '2 to 1'"),
        (
            f"path,label,split\n{'x' * 300},sad,val\n",
            r"clips\.csv:2: has a path that cannot be a file \(File name too long\)",
        ),
        (
            "path,label,split,start,end\nx.mp4,sad,val,2,3\nx.mp4,fear,val,0,2.5\n",
            r"clips\.csv:2: clip x overlaps what clips\.csv:3 says of it",
        ),
    ],
)
def test_a_line_that_cannot_be_is_named(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=message):
        described(tmp_path, table)


def test_what_spreadsheets_write_is_understood(tmp_path: Path) -> None:
    table = '\ufeffPath, Label ,split\r\n"a,b.mp4",Happy, VAL\r\n,,\r\n'
    (recording,) = described(tmp_path, table)
    (video,) = recording.videos
    assert (recording.path, video.name, video.annotations[EXPR].split) == (tmp_path / "a,b.mp4", "a,b", "val")
    assert [span.label for span in video.annotations[EXPR].spans] == [4]


def test_a_missing_file_is_named_and_left_out(tmp_path: Path) -> None:
    video_file(tmp_path, "a", batch="films")
    (tmp_path / "clips.csv").write_text("path,label,split\nfilms/a.mp4,sad,val\nfilms/b.mp4,sad,train\n")
    prepared = prepare_kind("clips", tmp_path / "clips.csv", tmp_path / "store")
    assert prepared.left_out == ("b",)
    (problem,) = (problem for problem in prepared.problems if problem.video == "b")
    assert (problem.kind, problem.detail) == ("no video file", "no file b.mp4 in the release")


def test_a_label_mended_in_the_table_is_prepared_again(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    table = tmp_path / "clips.csv"
    for word, label in (("sad", 5), ("fear", 3)):
        table.write_text(f"path,label,split\na.wav,{word},val\n")
        assert prepare_kind("clips", table, tmp_path / "store").made == 1
        assert set(video_of(tmp_path / "store", "a").frames.label) == {label}


# Audio alone, frames alone


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"), [(".wav", 48_000, 2), (".flac", 16_000, 1), (".wav", 8_000, 1)]
)
def test_audio_alone_has_frames_at_a_nominal_rate(suffix: str, rate: int, channels: int, tmp_path: Path) -> None:
    record(tmp_path / f"a{suffix}", 1.0, rate, channels)
    (tmp_path / "clips.csv").write_text(f"path,label,split\na{suffix},sad,train\n")
    prepared = prepare_kind("clips", tmp_path / "clips.csv", tmp_path / "store")
    assert prepared.problems == (), "neither crops nor a picture are missed"
    video = video_of(tmp_path / "store", "a")
    assert video.frames.time.tolist() == pytest.approx(np.arange(25) / 25)
    assert video.audio is not None
    assert len(video.audio) == 1 + 16_000 // 256
    assert FrameIndex([video], EXPR).has["audio"].all()
    assert not video.frames.has_crop.any()


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "I;16"])
def test_frames_that_are_faces_become_crops(mode: str, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    for number in (2, 10, 1):
        shade = Image.new("L", (48, 48), 20 * number)
        grey = (
            Image.fromarray(np.full((48, 48), 20 * number * 257, np.uint16)) if mode == "I;16" else shade.convert(mode)
        )
        grey.save(tmp_path / f"faces/p{number}.png")
    (tmp_path / "faces/p3.png").write_bytes(b"no picture")
    (tmp_path / "clips.csv").write_text("path,label,split\nfaces,sad,train\n")
    options = ClipOptions(images_are_faces=True)
    prepared = prepare_kind("clips", tmp_path / "clips.csv", tmp_path / "store", options)
    assert ("unreadable crops", "1 unreadable: p3.png") in [(p.kind, p.detail) for p in prepared.problems]
    video = video_of(tmp_path / "store", "faces")
    assert video.frames.has_crop.tolist() == [True, True, False, True]
    assert video.frames.label.tolist() == [5] * 4
    for row, number in ((0, 1), (1, 2), (3, 10)):
        (tmp_path / "crop.jpg").write_bytes(video.jpeg(row) or b"")
        with Image.open(tmp_path / "crop.jpg") as crop:
            assert (crop.size, crop.mode) == ((112, 112), "RGB")
            assert np.asarray(crop).mean() == pytest.approx(20 * number, abs=2)


def test_frames_alone_want_crops_or_to_be_faces(tmp_path: Path) -> None:
    sequence(tmp_path, "S001", "001", 3, "1.0")
    prepared = prepare_kind("ck+", tmp_path, tmp_path / "store")
    assert kinds(prepared) == {"S001_001": ["no crops"]}, "sound is not missed"


@pytest.mark.parametrize(("frames", "labels"), [(1, [0]), (2, [0, 3]), (3, [0, -1, 3]), (5, [0, -1, -1, -1, 3])])
def test_a_short_sequence_has_a_neutral_frame_and_one_of_its_class(
    frames: int, labels: list[int], tmp_path: Path
) -> None:
    sequence(tmp_path, "S001", "001", frames, "4.0")
    prepare_kind("ck+", tmp_path, tmp_path / "store")
    assert video_of(tmp_path / "store", "S001_001").frames.label.tolist() == labels


# Refusals


def write_stray(root: Path) -> None:
    video_file(root, "1", batch="Angry")


@pytest.mark.parametrize(
    ("kind", "write", "message"),
    [
        ("afew", write_stray, r"Angry/1\.mp4: is in no split folder; expected Train/<class>/, Val/<class>/ or Test/"),
        ("ravdess", write_stray, r"Angry/1\.mp4: is not a RAVDESS name; expected as 03-01-05-01-02-01-12"),
        ("ck+", lambda root: paint(root, ["a.png"]), "holds 0 folders cohn-kanade-images; expected one, at any depth"),
    ],
)
def test_a_data_set_of_another_kind_is_refused(
    kind: DatasetKind, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with pytest.raises(ReleaseError, match=message):
        read_dataset(kind, tmp_path, ClipOptions())


def test_the_organisers_release_takes_no_options_of_clips(release: Path) -> None:
    with pytest.raises(UserError, match=r"not for aff-wild2.*Leave out --labels, --crops"):
        read_dataset("aff-wild2", release, ClipOptions(val_fraction=0.5))


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(SettingsError, match="--val-fraction cannot be used; found"):
        ClipOptions(val_fraction=fraction)


def test_crops_that_are_no_folder_are_refused(tmp_path: Path) -> None:
    rows = [ClipRow(tmp_path / "a.wav", "sad", "s")]
    with pytest.raises(ReleaseError, match="none: is not a folder"):
        release_of(tmp_path, rows, ClipOptions(crops=(tmp_path / "none",)))


def test_the_command_takes_a_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next(layout for layout in LAYOUTS if layout.kind == "clips").write(tmp_path)
    where = ["--release", str(tmp_path / "clips.csv"), "--store", str(tmp_path / "store"), "--workers", "1"]
    options = ["--crops", str(tmp_path / "found"), "--images-are-faces", "--val-fraction", "0.4"]
    assert main(["prepare", "--kind", "clips", *where, *options]) == 0
    store = open_store(tmp_path / "store", EXPR)
    assert {video.name for video in store.videos} == {"a", "b", "c", "smile", "face"}
    assert {video.name: int(video.frames.has_crop.sum()) for video in store.videos} == {
        "a": 2,
        "b": 0,
        "c": 0,
        "smile": 4,
        "face": 1,
    }
    assert "no crops" in capsys.readouterr().out
