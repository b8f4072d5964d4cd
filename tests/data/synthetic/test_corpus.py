"""The synthetic corpus: its layout, its quirks, and that a seed fixes every byte."""

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.synthetic.corpus import EXTRA_LINES, RATES, CorpusPlan, write_release, write_video
from abaw_expr.data.synthetic.drawing import CLASS_LOOKS, draw_video
from abaw_expr.data.synthetic.speech import MANNERS, synthesise_speech
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import EXPR

TINY = CorpusPlan(train_videos=2, val_videos=2, test_videos=1, seconds=4)
ANNOTATIONS = Path("6th_ABAW_Annotations/EXPR_Recognition_Challenge")
CROP_ROOTS = ("cropped_aligned", "cropped_aligned_new_50_vids")
EXPR_DIGEST = "19fb3b9af69a7f7441bc4ce997af887bc5722ff4c3b2b45549ca6e740609d90f"
"""Of the annotations, hidden labels, test list and template of EXPR in `tiny`; no processor changes them."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "release"
    write_release(root, TINY, seed=0)
    return root


def tree_digest(root: Path, *patterns: str) -> str:
    """A hash over names and bytes of every file whose path matches one of the patterns."""
    lines = [
        f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(path for pattern in patterns for path in root.glob(pattern))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def label_files(root: Path) -> dict[str, list[int]]:
    """The label lines of every video of every split, by video."""
    paths = [*root.glob(f"{ANNOTATIONS}/*/*.txt"), *root.glob("hidden_test_labels/*.txt")]
    lines = {path.stem: path.read_text().splitlines() for path in paths}
    assert {rows[0] for rows in lines.values()} == {EXPR.header}
    return {video: [int(row) for row in rows[1:]] for video, rows in lines.items()}


def recordings(root: Path) -> dict[str, Path]:
    """Every MP4 by its recording's name, in the order of their numbers."""
    return {
        path.stem: path for path in sorted(root.glob("videos/*/*.mp4"), key=lambda path: int(path.stem.split("-")[0]))
    }


def read_back(path: Path) -> tuple[Fraction, list[Fraction], np.ndarray | None]:
    """A video's rate, its frames' times (s), and its audio (float, full scale 1)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate, times = stream.average_rate, []
        assert rate is not None
        for frame in container.decode(stream):
            assert frame.pts is not None
            assert frame.time_base is not None
            times.append(frame.pts * frame.time_base)
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return rate, times, None
        return rate, times, np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_layout_is_the_organisers(tiny: Path) -> None:
    folders = {str(path.relative_to(tiny)) for path in tiny.rglob("*") if path.is_dir()}
    assert {"videos/batch1", "videos/batch2", "hidden_test_labels", *CROP_ROOTS} <= folders
    assert {f"{ANNOTATIONS}/Train_Set", f"{ANNOTATIONS}/Validation_Set"} <= folders
    train = sorted(path.stem for path in tiny.glob(f"{ANNOTATIONS}/Train_Set/*.txt"))
    assert train == ["1-10-160x128", "2-8-320x128_left", "2-8-320x128_right"]
    assert {recording_of(video) for video in label_files(tiny)} == set(recordings(tiny))
    assert sorted(label_files(tiny)) == sorted(path.name for crops in CROP_ROOTS for path in (tiny / crops).iterdir())


def test_list_and_template_name_every_test_row(tiny: Path) -> None:
    labels = {path.stem: path.read_text().splitlines()[1:] for path in tiny.glob("hidden_test_labels/*.txt")}
    names = tiny / "names_of_videos_in_each_test_set/Expression_Recognition_Challenge_test_set_release.txt"
    assert names.read_bytes() == b"\xef\xbb\xbf5-12-160x128"
    template = (tiny / "prediction_files_format/CVPR_6th_ABAW_Expr_test_set_sample.txt").read_text()
    count = len(labels["5-12-160x128"])
    rows = [f"5-12-160x128/{i:05d}.jpg," for i in range(1, count + 1)]
    assert template == "\n".join([EXPR.submission_header, *rows]) + "\n"


def test_list_of_several_videos_has_windows_lines(tmp_path: Path) -> None:
    write_release(tmp_path, CorpusPlan(train_videos=0, val_videos=0, test_videos=2, seconds=1), seed=0)
    names = tmp_path / "names_of_videos_in_each_test_set/Expression_Recognition_Challenge_test_set_release.txt"
    assert names.read_bytes().count(b"\r\n") == names.read_bytes().count(b"\n") == 1


def test_annotations_of_expr_are_those_of_earlier_versions(tiny: Path) -> None:
    """Whatever else is written for the corpus, the random draws behind its classes keep their order."""
    patterns = (f"{ANNOTATIONS}/*/*.txt", "hidden_test_labels/*.txt", "*/Expression_*.txt", "*/*_Expr_*.txt")
    assert tree_digest(tiny, *patterns) == EXPR_DIGEST


@pytest.mark.slow
def test_seed_fixes_every_byte(tiny: Path, tmp_path: Path) -> None:
    write_release(tmp_path / "same", TINY, seed=0)
    write_release(tmp_path / "other", TINY, seed=1)
    assert tree_digest(tmp_path / "same", "**/*") == tree_digest(tiny, "**/*")
    for pattern in ("videos/*/*.mp4", "cropped_aligned/*/*.jpg", "hidden_test_labels*/*.txt"):
        digests = [
            {hashlib.sha256(path.read_bytes()).digest() for path in root.glob(pattern)}
            for root in (tiny, tmp_path / "other")
        ]
        assert digests[0]
        assert not digests[0] & digests[1]


def test_rates_frames_and_audio_read_back(tiny: Path) -> None:
    rates, audio_samples = [], []
    for path in recordings(tiny).values():
        rate, times, audio = read_back(path)
        assert times == [i / rate for i in range(len(times))]
        assert len(times) == round(4 * min(float(rate), 12.5))
        rates.append(rate)
        audio_samples.append(0.0 if audio is None else len(audio) / SAMPLE_RATE / float(len(times) / rate))
    assert tuple(rates) == RATES[:5]
    assert audio_samples == pytest.approx([0.8, 1, 1, 1, 0], abs=0.08)  # AAC comes in blocks of 0.064 s


def test_label_lines_differ_from_frames_as_planned(tiny: Path) -> None:
    frames = {name: len(read_back(path)[1]) for name, path in recordings(tiny).items()}
    extra = {video: len(labels) - frames[recording_of(video)] for video, labels in label_files(tiny).items()}
    assert set(extra.values()) <= {-1, 0, 1, 2}
    assert [extra[video] for video in sorted(extra)] == [1, 0, 0, 1, -1, 1]
    assert set(EXTRA_LINES) == {-1, 0, 1, 2}


def test_every_video_has_unannotated_lines_and_lost_crops(tiny: Path) -> None:
    assert label_files(tiny)
    for video, labels in label_files(tiny).items():
        frames = len(read_back(recordings(tiny)[recording_of(video)])[1])
        assert round(0.1 * frames) - 1 <= labels.count(-1) <= round(0.1 * frames) + 2
        crops = [path for root in CROP_ROOTS for path in tiny.glob(f"{root}/{video}/*.jpg")]
        assert len(crops) == frames - 1
        with Image.open(crops[0]) as crop:
            assert (crop.size, crop.mode) == ((CROP_SIDE, CROP_SIDE), "RGB")


@pytest.mark.slow
def test_default_plan_deals_every_class(tmp_path: Path) -> None:
    """Fewer frames than the default, the same number of recordings and the same dealing of classes."""
    done: list[tuple[int, int]] = []
    write_release(tmp_path, CorpusPlan(seconds=6), seed=0, on_progress=lambda *count: done.append(count))
    assert done == [(i, 20) for i in range(1, 21)]
    for split in ("Train_Set", "Validation_Set"):
        labels = [
            int(row) for path in tmp_path.glob(f"{ANNOTATIONS}/{split}/*.txt") for row in path.read_text().split()[1:]
        ]
        assert set(labels) == set(range(-1, 8))


def test_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ReleaseError, match="exists already; expected an empty or a new folder"):
        write_release(tmp_path, TINY, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_release(tmp_path / "release", TINY, seed=0, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001", "309/20", "15/2", "502/25"])
def test_video_keeps_odd_rates_exactly(tmp_path: Path, rate: str) -> None:
    grey = np.full((32, 48, 3), 100, np.uint8)
    write_video(tmp_path / "odd.mp4", Fraction(rate), [grey] * 25, None)
    found, times, audio = read_back(tmp_path / "odd.mp4")
    assert (found, times, audio) == (Fraction(rate), [i / Fraction(rate) for i in range(25)], None)


def test_video_keeps_a_tone(tmp_path: Path) -> None:
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)).astype(np.int16)
    write_video(tmp_path / "tone.mp4", Fraction(10), [np.zeros((32, 32, 3), np.uint8)] * 10, tone)
    audio = read_back(tmp_path / "tone.mp4")[2]
    assert audio is not None
    spectrum = np.abs(np.fft.rfft(audio[:SAMPLE_RATE]))
    assert spectrum.argmax() == 440
    assert np.sqrt(np.mean(audio[2000:14000] ** 2)) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.02)


def test_faces_of_a_class_change_where_the_look_says() -> None:
    """One person's open mouth (Surprise) darkens or brightens the mouth's place more than the forehead."""
    frames = np.stack(list(draw_video([0, 6], np.repeat([0, 1], 20), 10.0, np.random.default_rng(3)).frames)).astype(
        float
    )
    assert frames.shape == (40, CROP_SIDE, CROP_SIDE, 3)
    change = np.abs(frames[25:].mean(axis=0) - frames[:15].mean(axis=0)).mean(axis=-1)
    assert change[75:100, 40:72].mean() > 2 * change[20:28, 40:72].mean()


def test_voices_follow_their_level() -> None:
    """Anger is louder than Sadness by about what the table says, over many speakers."""

    def level(label: int) -> float:
        voices = [synthesise_speech([label], [2.0], np.random.default_rng(i)).audio.astype(float) for i in range(8)]
        assert all(len(audio) == 2 * SAMPLE_RATE for audio in voices)
        return float(np.mean([10 * np.log10(np.mean(audio**2)) for audio in voices]))

    assert level(1) - level(5) == pytest.approx(MANNERS[1, 3] - MANNERS[5, 3], abs=3)


def test_tables_have_a_row_a_class() -> None:
    assert len(CLASS_LOOKS) == len(MANNERS) == EXPR.n_columns
