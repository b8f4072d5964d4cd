"""Voice activity, entropy change and key-frame weights on generated films whose voices and pictures are known."""

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.key_frames import ACTIVITY, STRETCH, changes
from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.entropy import ENTROPY_STEP, Entropies, entropy_of
from abaw_expr.data.media.images import as_crop
from abaw_expr.data.store.store import MANIFEST, StoredVideo, open_store
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.data.synthetic.drawing import draw_video
from abaw_expr.errors import StoreError
from abaw_expr.models.join import key_frame_weights
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR
from tests.helpers.tiny import ANNOTATIONS, add_validation, annotate, contents, jpeg, prepared_in, run, seal, voice

RATE = Fraction(10)
SECONDS = 8
"""Of each part of a film."""
FRAMES = int(SECONDS * RATE)
TRAIN = f"{ANNOTATIONS}/Train_Set"
PARTS = ("spoken", "silent", "frozen", "black")
"""Of the film: speech and a moving face, the face alone, speech over a face that stands still, speech over black."""


def images() -> list[np.ndarray]:
    """The frames of the film, uint8 [side, side, 3]."""
    rng = np.random.default_rng(0)
    moving = list(draw_video([0, 4, 6, 1], np.arange(2 * FRAMES) * 4 // (2 * FRAMES), float(RATE), rng).frames)
    return [*moving, *[moving[-1]] * FRAMES, *[np.zeros_like(moving[0])] * FRAMES]


def sound() -> np.ndarray:
    """Its audio: speech but for the second part, which has the noise of a quiet room."""
    speech = voice(SECONDS)
    room = np.random.default_rng(1).normal(0, 20, SECONDS * SAMPLE_RATE).astype(np.int16)
    return np.concatenate([speech, room, speech, speech])


def add_film(root: Path, name: str, pictures: list[np.ndarray], audio: np.ndarray | None) -> None:
    """Adds a film, with the crops that its frames are after they were encoded and decoded."""
    path = root / f"batch1/{name}.mp4"
    write_video(path, RATE, pictures, audio)
    annotate(root, name, [0] * len(pictures), TRAIN)
    (root / "cropped_aligned" / name).mkdir(parents=True)
    with av.open(str(path)) as film:
        for number, frame in enumerate(film.decode(video=0), start=1):
            pixels = frame.to_ndarray(format="rgb24")
            (root / "cropped_aligned" / name / crop_name(number)).write_bytes(encoded(pixels))


def encoded(pixels: np.ndarray) -> bytes:
    """Pixels, uint8 [height, width, 3], as a crop."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return as_crop(file.getvalue())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> StoredVideo:
    root = tmp_path_factory.mktemp("films") / "release"
    add_film(root, "film", images(), sound())
    add_validation(root)
    run(root, root.parent / "store")
    (video,) = open_store(root.parent / "store", EXPR).split("train")
    return video


def weights_of(video: StoredVideo) -> np.ndarray:
    """w_a and w_v of each frame, [T, 2]."""
    index = FrameIndex([video], EXPR)
    activity, present = (
        torch.from_numpy(np.stack([of[name] for name in ("audio", "visual")], axis=1))
        for of in (index.activity, index.has)
    )
    return key_frame_weights(activity, present).numpy()


def inside(part: str) -> slice:
    """The frames whose stretch lies in a part of the film."""
    margin, start = int(STRETCH / 2 * RATE) + 4, PARTS.index(part) * FRAMES
    return slice(start + margin, start + FRAMES - margin)


def test_silence_leaves_the_images_the_weight(film: StoredVideo) -> None:
    assert (weights_of(film)[inside("silent"), 1] > 0.9).all()


@pytest.mark.parametrize("part", ["frozen", "black"])
def test_a_picture_that_stands_still_leaves_the_voice_the_weight(part: str, film: StoredVideo) -> None:
    assert (weights_of(film)[inside(part), 0] > 0.9).all()


def test_a_moving_face_that_speaks_shares_the_weight(film: StoredVideo) -> None:
    weights = weights_of(film)[inside("spoken")]
    assert ((weights > 0.1) & (weights < 0.9)).all()


def test_activity_is_a_fraction_of_every_frame(film: StoredVideo) -> None:
    for of in ACTIVITY.values():
        activity = of(film)
        assert activity.shape == (len(film.frames),)
        assert activity.dtype == np.float32
        assert ((activity >= 0) & (activity <= 1)).all()


@pytest.mark.parametrize(("spoken", "crops"), [(False, 20), (True, 0), (False, 1)])
def test_what_a_video_lacks_has_no_weight(spoken: bool, crops: int, tmp_path: Path) -> None:
    """No audio, no crops, or neither audio nor more than one crop, in a film that is shorter than the stretch."""
    root = tmp_path / "release"
    add_film(root, "film", images()[:20], voice(2.0) if spoken else None)
    for path in sorted((root / "cropped_aligned/film").iterdir())[crops:]:
        path.unlink()
    add_validation(root)
    run(root, tmp_path / "store")
    (video,) = open_store(tmp_path / "store", EXPR).split("train")
    index, weights = FrameIndex([video], EXPR), weights_of(video)
    has = np.stack([index.has[name] for name in ("audio", "visual")], axis=1)
    assert has.any()
    assert not weights[~has].any()
    np.testing.assert_allclose(weights.sum(axis=1), has.any(axis=1))


@given(st.integers(1, 40), st.floats(0.05, 60))
def test_a_video_shorter_than_the_stretch_has_the_mean_of_all_of_it(frames: int, rate: float) -> None:
    time = np.arange(frames) / rate
    video = StoredVideo("a", "train", Path("none"), np.zeros(64, np.float32), np.ones(64, np.float32))
    said = np.random.default_rng(frames).random(int(time[-1] / 0.032) + 1).astype(np.float16)
    object.__setattr__(video, "voice", said)  # as if it had been read
    object.__setattr__(video, "frames", type("Frames", (), {"time": time, "__len__": lambda self: frames})())
    activity = ACTIVITY["audio"](video)
    for number, at in enumerate(time):
        near = [
            value
            for step, value in enumerate(said.astype(float))
            if (step + 1) * 0.032 > at - STRETCH / 2 + 1e-9 and step * 0.032 < at + STRETCH / 2 - 1e-9
        ]
        assert activity[number] == pytest.approx(np.mean(near), abs=0.02)


def test_changes_are_from_the_last_known_entropy() -> None:
    nan = np.nan
    np.testing.assert_array_equal(
        changes(np.array([nan, 2.0, nan, nan, 3.5, 3.0, nan])), [nan, nan, nan, nan, 1.5, 0.5, nan]
    )
    assert np.isnan(changes(np.array([2.0]))).all()


def test_entropy_is_that_of_32_grey_levels() -> None:
    """Of one shade it is 0, of two in equal parts 1 bit, of noise almost 5."""
    assert entropy_of(jpeg(128)) == 0
    halves = np.zeros((112, 112, 3), np.uint8)
    halves[:56] = 200
    assert entropy_of(encoded(halves)) == pytest.approx(1.0, abs=0.01)
    noise = np.repeat(np.random.default_rng(0).integers(0, 256, (112, 112, 1), np.uint8), 3, axis=2)
    assert 4.8 < entropy_of(encoded(noise)) <= 5
    assert np.isnan(entropy_of(b"\xff\xd8 no picture \xff\xd9"))


def test_a_step_has_the_entropy_of_its_first_readable_crop() -> None:
    entropies = Entropies(np.array([0.0, 0.1, 0.39, 0.4, 1.3]))
    halves = np.zeros((112, 112, 3), np.uint8)
    halves[:56] = 200
    for frame, data in ((1, b"broken"), (2, jpeg()), (3, encoded(halves)), (5, encoded(halves))):
        entropies.add(frame, data)
    assert entropies.bits.shape == (int(1.3 / ENTROPY_STEP) + 1,)
    assert entropies.bits[0] == 0
    assert np.isnan(entropies.bits[1:3]).all()
    assert entropies.bits[3] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("lost", ["voice.npy", "film.entropy.npy"])
def test_a_store_of_before_names_what_it_lacks(lost: str, film: StoredVideo) -> None:
    files = {name: known for name, known in film.files.items() if name != lost}
    before = StoredVideo("film", "train", film.folder.parent / "gone", film.audio_mean, film.audio_std, files, EXPR)
    object.__setattr__(before, "frames", film.frames)
    with pytest.raises(StoreError, match=rf"{lost}: was not made: .* Run `prepare` again"):
        _ = before.voice if lost == "voice.npy" else before.entropy


@pytest.mark.parametrize("gone", ["sound.npy", "voice.npy", "a.entropy.npy"])
def test_a_stored_array_that_is_gone_is_made_again_by_prepare(gone: str, tmp_path: Path) -> None:
    root = prepared_in(tmp_path)
    (root / "store/recordings/a" / gone).unlink()
    (video,) = open_store(root / "store", EXPR).split("train")
    with pytest.raises(StoreError, match=rf"{gone}: cannot be read .* Delete its folder and run `prepare` again"):
        _ = video.audio, video.voice, video.entropy


def test_prepare_completes_a_store_of_before_and_keeps_what_runs_know(tmp_path: Path) -> None:
    root = prepared_in(tmp_path)
    manifest = json.loads((root / "store" / MANIFEST).read_bytes())
    whole = contents(root / "store")
    for folder in (root / "store/recordings").iterdir():
        entry = json.loads((folder / "recording.json").read_bytes())
        for path in [folder / "voice.npy", folder / "waveform.npy", *folder.glob("*.entropy.npy")]:
            path.unlink()
            del entry["files"][path.name], entry["bytes"][path.name]
        (folder / "recording.json").write_text(json.dumps(entry | {"source": "of an earlier reading"}))
    seal(root / "store")
    before = json.loads((root / "store" / MANIFEST).read_bytes())
    assert before["tasks"] == manifest["tasks"], "the digest that runs know is of media, labels and splits"
    assert not list(open_store(root / "store", EXPR).split("train")[0].folder.glob("*.npy"))[1:]
    assert run(root / "release", root / "store").made == 2
    assert contents(root / "store") == whole
