"""Names out of files never lead anywhere: 2,000 random ones through every reader, and what is written of them."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abaw_expr.data.datasets.options import ClipOptions
from abaw_expr.data.datasets.registry import read_dataset
from abaw_expr.data.release.reader import read_annotation_folder, read_release, read_test_list
from abaw_expr.data.store.prepare import prepare
from abaw_expr.errors import ReleaseError, UserError
from abaw_expr.faces.choose import TRACK_COLUMNS, read_table
from abaw_expr.faces.extract import extract_faces
from abaw_expr.files import LONGEST_NAME, check_name
from abaw_expr.outputs.importing import frames_of, import_branch
from abaw_expr.tasks.task import EXPR
from submissions.checking.videos import read_list
from submissions.reader import read_predictions
from submissions.template import read_template
from submissions.writer import VideoLabels, write_per_video
from tests.helpers.tiny import add, add_validation

PIECES = [".", "..", "...", "/", "\\", "a", "Z", "7", "-", "_left", "_right", " ", "\t", "\n", "\r", "\x00", "\x1b[2J"]
PIECES += ["\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "é", "e\u0301", "漢", "😀", "\ud800", "\udcff", ",", '"', "'"]
PIECES += ["CON", "NUL", "nan", "NA", "null", "recordings", "manifest.json", "new", ".part", ".lock", "~", "-rf", "%2e"]
COUNT = 2000


def random_names() -> list[str]:
    rng = np.random.default_rng(0)
    names = ["", ".", "..", "/", "a" * 255, "a" * LONGEST_NAME, "é" * 101, "../../etc", "/etc", "a/../..", "_left"]
    while len(names) < COUNT:
        name = "".join(rng.choice(PIECES, rng.integers(1, 5)).tolist())
        names.append(name * int(rng.choice([1, 1, 1, 1, 40])))
    return names


NAMES = random_names()


def stays(name: str) -> bool:
    """Whether a name, joined to a folder, is something in that folder that a file system can hold and a person see."""
    joined = os.path.normpath(os.path.join("/folder", name + ".json"))
    try:
        length = len(os.fsencode(name + ".json.part"))
    except ValueError:
        return False
    inside = os.path.dirname(joined) == "/folder" and os.path.basename(joined) == name + ".json"
    return (
        bool(name)
        and inside
        and length < 255
        and not name.startswith(".")
        and "\x00" not in name
        and "\x1b" not in name
    )


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def from_list(name: str, folder: Path) -> Sequence[str]:
    return read_test_list(write(folder / "list.txt", f"{name}\nlast\n"))


def from_checked_list(name: str, folder: Path) -> Sequence[str]:
    return read_list(write(folder / "list.txt", f"{name}\nlast\n"))


def from_template(name: str, folder: Path) -> Sequence[str]:
    return list(read_template(write(folder / "t.txt", f"{EXPR.submission_header}\n{name}/00001.jpg,\n")).videos)


def from_predictions(name: str, folder: Path) -> Sequence[str]:
    return list(read_predictions(write(folder / "p.txt", f"{EXPR.submission_header}\n{name}/00001.jpg,3\n"))[1])


def from_tracks(name: str, folder: Path) -> Sequence[str]:
    with open(folder / "tracks.csv", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        csv.writer(file).writerows([TRACK_COLUMNS, [name, *"1" * 9, "main"]])
    return list(read_table(folder / "tracks.csv"))


def from_clips(name: str, folder: Path) -> Sequence[str]:
    with open(folder / "clips.csv", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label", "subject", "split", "name"], ["a.mp4", "happy", "x", "val", name]]
        )
    release = read_dataset("clips", folder / "clips.csv", options=ClipOptions())
    return [video.name for recording in release.recordings for video in recording.videos]


def from_film_in_clips(name: str, folder: Path) -> Sequence[str]:
    with open(folder / "clips.csv", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], [f"{name}.mp4", "happy", "val"]])
    release = read_dataset("clips", folder / "clips.csv", options=ClipOptions())
    return [video.name for recording in release.recordings for video in recording.videos]


def in_folder(folder: Path, name: str, text: str) -> Path:
    """A folder with one file of that name, where the system takes it."""
    own = folder / "own"
    own.mkdir(exist_ok=True)
    for old in own.iterdir():
        old.unlink()
    if "/" in name or "\x00" in name:
        pytest.skip("no file")
    (own / name).write_text(text)
    return own


def from_annotations(name: str, folder: Path) -> Sequence[str]:
    return list(read_annotation_folder(in_folder(folder, f"{name}.txt", f"{EXPR.header}\n0\n"), EXPR))


def from_per_video(name: str, folder: Path) -> Sequence[str]:
    return list(read_predictions(in_folder(folder, f"{name}.txt", f"{EXPR.header}\n0\n"))[1])


def from_films(name: str, folder: Path) -> Sequence[str]:
    video_files = {name: folder / f"{name}.mp4"}
    return [one for one, said in extract_faces(video_files, folder / "out").items() if said == "no such file"]


LIKE = frames_of(EXPR, "val", {"v": np.array([1])}, {"v": np.array([0.0])})


def imported(path: Path) -> Sequence[str]:
    """The videos of the table, which alone has a say: names of a source are held against its own."""
    outputs = import_branch(path, "m", LIKE, False, None, incomplete=True).outputs
    return outputs.table["video"].tolist()


def from_csv(names: Sequence[str], folder: Path) -> Sequence[str]:
    """Names of a table, each with a frame of its own, so that none occurs twice."""
    with open(folder / "m.csv", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        rows = [[video, frame, *[1 / 8] * EXPR.n_columns] for frame, video in enumerate(("v", *names), start=1)]
        csv.writer(file).writerows([["video", "frame", *EXPR.columns], *rows])
    return imported(folder / "m.csv")


def from_parquet(names: Sequence[str], folder: Path) -> Sequence[str]:
    count = len(names) + 1
    p = {column: [1 / 8] * count for column in EXPR.columns}
    columns = {"video": ["v", *names], "frame": [*range(1, count + 1)], **p}
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return imported(folder / "m.parquet")


READERS: list[Callable[[str, Path], Sequence[str]]] = [
    from_list,
    from_checked_list,
    from_template,
    from_predictions,
    from_tracks,
    from_clips,
    from_film_in_clips,
    from_annotations,
    from_per_video,
    from_films,
]


def snapshot(root: Path, but: Path) -> dict[str, tuple[int, int, int]]:
    """Everything under a folder outside another, by what changes when it is made anew, written or emptied."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path != but and but not in path.parents:
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns if path.is_file() else 0)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_no_reader_lets_a_name_out(read: Callable[[str, Path], Sequence[str]], tmp_path: Path) -> None:
    inside = tmp_path / "deep/inside"
    inside.mkdir(parents=True)
    (tmp_path / "deep/notes.txt").write_text("mine")
    before, taken, refused = snapshot(tmp_path, inside), 0, 0
    for name in NAMES:
        try:
            names = read(name, inside)
        except (UserError, OSError, UnicodeEncodeError, pytest.skip.Exception):  # the two last: there is no such file
            refused += 1
            continue
        taken += 1
        assert all(stays(one) for one in names), (name, names)
    assert snapshot(tmp_path, inside) == before
    assert taken > 200
    assert refused > 400


@pytest.mark.slow
@pytest.mark.parametrize("read", [from_csv, from_parquet], ids=lambda read: read.__name__)
def test_no_table_lets_a_name_out(read: Callable[[Sequence[str], Path], Sequence[str]], tmp_path: Path) -> None:
    """Fifty names in a table; one where it is blank or has a surrogate, which make a table unreadable."""
    inside = tmp_path / "deep/inside"
    inside.mkdir(parents=True)
    before, taken = snapshot(tmp_path, inside), 0
    alone = [not name.strip() or any("\ud800" <= c <= "\udfff" for c in name) for name in NAMES]
    tables = [[name] for name, one in zip(NAMES, alone, strict=True) if one]
    names = [name for name, one in zip(NAMES, alone, strict=True) if not one]
    tables += [names[start : start + 50] for start in range(0, len(names), 50)]
    assert sum(map(len, tables)) == COUNT
    while tables:
        names = tables.pop()
        try:
            videos = read(names, inside)
        except (UserError, UnicodeEncodeError):
            half = len(names) // 2
            tables += [names[:half], names[half:]] if half else []
            continue
        taken += len(names)
        assert all(stays(one) for one in videos), (names, videos)
    assert snapshot(tmp_path, inside) == before
    assert taken > 1000


@pytest.mark.slow
def test_what_is_written_of_names_that_were_taken_stays_inside(tmp_path: Path) -> None:
    """A store, crops and a folder of predictions for all names that `check_name` lets pass."""
    good = []
    for name in dict.fromkeys(name.strip() for name in NAMES):
        try:
            good.append(check_name(name, ReleaseError, tmp_path))
        except ReleaseError:
            assert not stays(name) or not name.isprintable() or "\\" in name or len(name.encode()) > LONGEST_NAME
    good = [name for name in good if "," not in name and not name.endswith(("_left", "_right"))]
    assert len(good) > 300
    release, inside = tmp_path / "deep/release", tmp_path / "deep/inside"
    add(release, "train")
    add_validation(release)
    (tmp_path / "deep/notes.txt").write_text("mine")
    inside.mkdir()
    listed = release / "expression_x_test_set_release.txt"
    listed.write_text("\n".join(good))
    rows = [f"{name}/00001.jpg," for name in good]
    template = write(tmp_path / "deep/template.txt", "\n".join([EXPR.submission_header, *rows]))
    before = snapshot(tmp_path, inside)
    prepared = prepare(release, inside / "store", 1, lambda done, total: None, read_release)
    assert len(prepared.left_out) == len(good)
    folders = {path.name for path in (inside / "store/recordings").iterdir()}
    assert folders == {*good, "train", "val"}
    labels = {name: VideoLabels(np.array([1]), np.array([3])) for name in good}
    write_per_video(read_template(template, EXPR), {EXPR: labels}, inside / "predictions")
    assert {path.name for path in (inside / "predictions").iterdir()} == {f"{name}.txt" for name in good}
    assert snapshot(tmp_path, inside) == before
