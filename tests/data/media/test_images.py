"""Images of any format are read upright and as RGB, or refused; so are the frames of a video."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from abaw_expr.data.media.decode import read_times
from abaw_expr.data.media.images import ImageError, as_crop, is_image, is_rotated, read_image
from abaw_expr.data.media.sources import list_images, media_type, read_source
from abaw_expr.data.release.crops import CropReport, crop_problems, has_usable, list_crops, read_crops
from abaw_expr.faces.frames import read_frames, upright, upright_size
from tests.helpers.cases import ONE, lay
from tests.helpers.clips import encode
from tests.helpers.damage import write_test_video
from tests.helpers.tiny import crop, jpeg

FACE = np.zeros((112, 112, 3), np.uint8)
FACE[:56], FACE[:30, :20] = (220, 160, 120), (40, 60, 200)
GREY = np.asarray(Image.fromarray(FACE).convert("L"))
Save = Callable[[Path], object]


FORMS: dict[str, Save] = {
    "whole.png": lambda path: Image.fromarray(FACE).save(path),
    "palette.png": lambda path: Image.fromarray(FACE).convert("P", palette=Image.Palette.ADAPTIVE).save(path),
    "palette.bmp": lambda path: Image.fromarray(FACE).quantize(16).save(path),
    "alpha.png": lambda path: Image.fromarray(FACE).convert("RGBA").save(path),
    "cmyk.jpg": lambda path: Image.fromarray(FACE).convert("CMYK").save(path, quality=95),
    "cmyk.tif": lambda path: Image.fromarray(FACE).convert("CMYK").save(path),
    "lossless.webp": lambda path: Image.fromarray(FACE).save(path, lossless=True),
    "lossy.webp": lambda path: Image.fromarray(FACE).save(path, quality=95),
    "grey.png": lambda path: Image.fromarray(GREY).save(path),
    "grey-alpha.png": lambda path: Image.fromarray(GREY).convert("LA").save(path),
    "pages.tif": lambda path: Image.fromarray(FACE).save(path, save_all=True, append_images=[Image.fromarray(GREY)]),
    "16.png": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path),
    "16.tif": lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path),
    "32-of-255.tif": lambda path: Image.fromarray(GREY.astype(np.int32)).save(path),
    "32-of-16.tif": lambda path: Image.fromarray(GREY.astype(np.int32) * 257).save(path),
    "32.tif": lambda path: Image.fromarray(GREY.astype(np.int32) * (2**31 // 256)).save(path),
    "fraction.tif": lambda path: Image.fromarray(GREY.astype(np.float32) / 255).save(path),
    "float-of-255.tif": lambda path: Image.fromarray(GREY.astype(np.float32)).save(path),
    "float-of-16.tif": lambda path: Image.fromarray(GREY.astype(np.float32) * 257).save(path),
}
"""Formats of one face, by the name of the file."""


@pytest.mark.parametrize("name", FORMS)
def test_every_form_shows_the_same_face(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name)
    assert is_image(tmp_path / name)
    shown = np.asarray(read_image(tmp_path / name), float)
    whole = FACE if shown.std(axis=2).max() > 10 else np.repeat(GREY[..., None], 3, axis=2)
    assert shown.shape == FACE.shape
    assert np.abs(shown - whole).mean() < 4


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    clear.paste((200, 100, 50, 255), (0, 0, 10, 20))
    clear.save(tmp_path / "a.png")
    shown = np.asarray(read_image(tmp_path / "a.png"))
    assert shown[0, 0].tolist() == [200, 100, 50]
    assert shown[0, 19].tolist() == [0, 0, 0]


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_is_obeyed(tmp_path: Path, turn: int) -> None:
    """The image is stored so that obeying the tag shows the face."""
    tag = Image.Exif()
    tag[274] = turn
    stored = next(
        held
        for quarters in range(4)
        for mirrored in (False, True)
        for held in [Image.fromarray(np.rot90(FACE[:, ::-1] if mirrored else FACE, quarters).copy())]
        if np.array_equal(np.asarray(_shown(held, turn)), FACE)
    )
    stored.save(tmp_path / "a.png", exif=tag)
    stored.save(tmp_path / "a.jpg", exif=tag, quality=95)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), FACE)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg"), float) - FACE).mean() < 3
    assert is_rotated(tmp_path / "a.jpg") == (turn != 1)


def _shown(image: Image.Image, turn: int) -> Image.Image:
    tagged = image.copy()
    tagged.getexif()[274] = turn
    shown = ImageOps.exif_transpose(tagged)
    assert shown is not None
    return shown


@pytest.mark.parametrize(
    "values",
    [
        np.full((16, 16), np.nan, np.float32),
        np.full((16, 16), -5.0, np.float32),
        np.full((16, 16), 1e9, np.float32),
        np.full((16, 16), -1, np.int32),
    ],
)
def test_what_says_no_grey_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="grey values"):
        as_crop(tmp_path / "a.tif")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"no picture", jpeg()[:200], b"\x89PNG\r\n\x1a\n" + bytes(50)):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(ImageError):
            read_image(tmp_path / "a.png")


def test_kind_goes_by_what_is_there(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.wav", "c"):
        Image.fromarray(FACE).save(tmp_path / name, "PNG")
        assert media_type(tmp_path / name) == "images"
    frames = [Image.fromarray(np.roll(FACE, i, axis=0)) for i in range(5)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=40)
    assert media_type(tmp_path / "moving.gif") == "video"
    assert len(read_source(tmp_path / "moving.gif").times) == 5


@pytest.mark.parametrize("name", ["song.mp3", "song.mp4"])
def test_a_cover_makes_no_video_of_a_song(tmp_path: Path, name: str) -> None:
    """An ID3 tag (2.3, 4.15) before the audio, whatever the file is called."""
    song = write_test_video(tmp_path / "plain.mp3", None, "libmp3lame")
    body = b"\0image/jpeg\0\3\0" + jpeg()
    frame = b"APIC" + len(body).to_bytes(4) + b"\0\0" + body
    length = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path = tmp_path / name
    path.write_bytes(b"ID3\3\0\0" + length + frame + song.read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert media_type(path) == "audio"
    assert len(read_source(path).times) == pytest.approx(50, abs=3)
    assert not len(read_times(path))


def test_images_of_every_ending_are_listed(tmp_path: Path) -> None:
    for name in ("b2.webp", "b10.tif", "b1.PNG", ".b3.png", "Thumbs.db", "._b1.PNG"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["b1.PNG", "b2.webp", "b10.tif"]


def test_crops_of_other_forms_are_read_and_kept_as_jpeg(tmp_path: Path) -> None:
    folder = tmp_path / "cropped_aligned/a"
    crop(tmp_path, "a", [1])
    tag = Image.Exif()
    tag[274] = 6
    Image.fromarray(FACE).save(folder / "00002.png")
    Image.fromarray(FACE).save(folder / "00003.webp")
    Image.fromarray(np.rot90(FACE).copy()).save(folder / "00004.jpg", exif=tag, quality=95)
    Image.fromarray(FACE).save(folder / "00005.jpg", "PNG")
    (folder / "00006.png").write_bytes(b"no picture")
    crops, report = list_crops((folder,)), CropReport()
    found = dict(read_crops(crops, report))
    assert list(found) == [f"{frame:05d}.jpg" for frame in range(1, 6)]
    for frame in range(2, 6):
        assert np.abs(np.asarray(read_image(found[f"{frame:05d}.jpg"]), float) - FACE).mean() < 4
        assert not is_rotated(found[f"{frame:05d}.jpg"])
    assert report.converted == ["00002.png", "00003.webp", "00004.jpg", "00005.jpg"]
    assert list(report.unreadable.values()) == ["00006.png"]
    assert {problem.kind for problem in crop_problems("a", crops, report)} == {
        "unreadable crops",
        "crops in another format",
    }
    assert has_usable((folder,))
    assert not has_usable((tmp_path,))


MATRICES = {
    (ONE, 0, 0, ONE): lambda image: image,
    (0, ONE, -ONE, 0): lambda image: np.rot90(image, -1),
    (-ONE, 0, 0, -ONE): lambda image: np.rot90(image, 2),
    (0, -ONE, ONE, 0): lambda image: np.rot90(image, 1),
    (-ONE, 0, 0, ONE): lambda image: image[:, ::-1],
    (ONE, 0, 0, -ONE): lambda image: image[::-1],
    (0, ONE, ONE, 0): lambda image: image.transpose(1, 0, 2),
    (0, -ONE, -ONE, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}
"""What a display matrix (a, b, c, d) does: a pixel (x, y) is shown at (a x + c y, b x + d y)."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = np.full((80, 112, 3), 90, np.uint8)
    wide[:40, :30], wide[60:, 90:] = (220, 160, 120), (40, 60, 200)
    path = tmp_path_factory.mktemp("stills") / "plain.mp4"
    return encode(path, [wide] * 3, "libx264", [Fraction(i, 25) for i in range(3)])


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_display_matrix_is_obeyed_whole(plain: Path, tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = matrix
    path = lay(plain, tmp_path / "a.mp4", [a, b, 0, c, d, 0, 0, 0, 1 << 30])
    ((_, stored), *_), ((_, frame), *_) = read_frames(plain), read_frames(path)
    expected = MATRICES[matrix](upright(stored))
    assert np.array_equal(upright(frame), expected)
    assert upright_size(frame) == expected.shape[1::-1]
