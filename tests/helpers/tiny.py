"""Tiny releases that a test may break, and what many tests of the data ask of them."""

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from abaw_expr.data.store.prepare import Prepared, prepare
from abaw_expr.data.store.store import MANIFEST, summary_of
from abaw_expr.data.synthetic.corpus import CorpusPlan, write_release, write_video
from abaw_expr.data.synthetic.speech import synthesise_speech
from abaw_expr.files import file_digest
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR, Task

ANNOTATIONS = "6th_ABAW_Annotations/EXPR_Recognition_Challenge"


def small_release(root: Path) -> None:
    """Writes the release that many tests share, with all its quirks."""
    write_release(root, CorpusPlan(train_videos=2, val_videos=2, test_videos=1, seconds=6), seed=3)


def annotate(
    root: Path, name: str, labels: Sequence[object], folder: str = f"{ANNOTATIONS}/Train_Set", task: Task = EXPR
) -> Path:
    """Writes a video's annotation file, a line a label."""
    path = root / folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([task.header, *map(str, labels)]) + "\n")
    return path


def jpeg(shade: int = 128) -> bytes:
    """A grey crop."""
    file = io.BytesIO()
    Image.new("RGB", (112, 112), (shade,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def broken_jpeg() -> bytes:
    """A JPEG whose header and end are good, and whose body no decoder can read."""
    data = bytearray(jpeg())
    counts = data.index(b"\xff\xc4") + 5  # of the Huffman codes of each length
    data[counts : counts + 16] = b"\xff" * 16
    return bytes(data)


def crop(
    root: Path, name: str, frames: Iterable[int], crops: str = "cropped_aligned", data: bytes | None = None
) -> None:
    """Writes a video's crops, each frame in its own shade of grey, or `data` for all of them."""
    folder = root / crops / name
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        (folder / crop_name(frame)).write_bytes(data if data is not None else jpeg(10 * frame % 256))


def voice(seconds: float, gain: float = 3) -> np.ndarray:
    """What the detector takes for a voice, int16 at 16 kHz."""
    spoken = synthesise_speech([0], [seconds], np.random.default_rng(0)).audio
    return np.clip(gain * spoken.astype(np.float64), -(2**15), 2**15 - 1).astype(np.int16)


def video_file(
    root: Path, name: str, frames: int = 10, rate: Fraction = Fraction(10), audio: float = 1.0, batch: str = "batch1"
) -> Path:
    """Writes a grey video with a voice as audio, over that fraction of its length (0: no audio stream)."""
    path = root / batch / f"{name}.mp4"
    seconds = float(frames / rate) * audio
    shades = (np.full((64, 64, 3), 100 + i % 100, np.uint8) for i in range(frames))
    write_video(path, rate, shades, voice(seconds) if seconds else None)
    return path


def add(root: Path, name: str, lines: int = 10, frames: int = 10, audio: float = 1.0) -> Path:
    """Adds a whole training video: annotation, crops of its first two frames, and the video file that is returned."""
    annotate(root, name, [i % 8 for i in range(lines)])
    crop(root, name, (1, 2))
    return video_file(root, name, frames, audio=audio)


def add_validation(root: Path) -> None:
    """Adds one whole validation video, `val`, without which a release is incomplete."""
    annotate(root, "val", [0] * 5, f"{ANNOTATIONS}/Validation_Set")
    crop(root, "val", (1, 2))
    video_file(root, "val", frames=5)


def run(release: Path, store: Path, workers: int = 1) -> Prepared:
    """Prepares a release."""
    return prepare(release, store, workers, lambda done, total: None)


def prepared_in(root: Path) -> Path:
    """A folder with a release of two videos and the store that is made of it."""
    add(root / "release", "a")
    add_validation(root / "release")
    run(root / "release", root / "store")
    return root


def kinds(prepared: Prepared) -> dict[str, list[str]]:
    """Kinds of problem by video."""
    found = defaultdict(list)
    for problem in prepared.problems:
        found[problem.video].append(problem.kind)
    return dict(found)


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def seal(store: Path) -> None:
    """Makes every digest of a store that of the bytes that are there now; one of a file that is not there stays."""
    manifest = json.loads((store / MANIFEST).read_bytes())
    entries = {}
    for name in manifest["recordings"]:
        path = store / "recordings" / name / "recording.json"
        entry = entries[name] = json.loads(path.read_bytes())
        files = {file: (path.with_name(file), known) for file, known in entry["files"].items()}
        entry["files"] = {file: file_digest(at) if at.exists() else known for file, (at, known) in files.items()}
        path.write_text(json.dumps(entry))
        manifest["recordings"][name] = file_digest(path)
    columns = {name: task["columns"] for name, task in manifest["tasks"].items()}
    (store / MANIFEST).write_text(json.dumps(manifest | summary_of(entries, columns)))
